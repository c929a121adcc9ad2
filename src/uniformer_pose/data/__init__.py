"""From annotation files and pictures to person crops."""
