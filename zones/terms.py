"""The words that columns and the interface take. Apart from the tables: the API reads no model, and saves 7 MB."""

VEHICLE_CLASSES = ("car", "motorbike")
KNOWN_CLASSES = (*VEHICLE_CLASSES, "large")
ADMISSIONS = ("advisory", "strict")
KINDS = ("kerb", "off_street")
