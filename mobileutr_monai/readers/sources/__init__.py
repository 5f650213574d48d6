"""Where inputs come from when they do not lie in one folder: lists of files, object storage, DICOMweb."""
