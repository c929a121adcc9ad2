"""Person detectors: RGB pictures -> ``PersonBoxes``, each in a file of its own, named by a YAML of conf/detector."""
