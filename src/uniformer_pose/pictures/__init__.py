"""Pictures for people: poses drawn over images, and contact sheets of what the network is shown and says."""
