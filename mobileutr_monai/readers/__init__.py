"""What an input is and how it becomes an array: images, NIfTI, DICOM, archives, and the cases of a folder."""
