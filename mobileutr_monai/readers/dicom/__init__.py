"""Reading DICOM: headers, series, pixels, calibration, and the reader for ``LoadImaged``."""
