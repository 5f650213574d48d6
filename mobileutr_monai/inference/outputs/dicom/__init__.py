"""The DICOM objects written for a case: Segmentations, Secondary Captures, and where they come from."""
