"""One-pass evaluation of a bundle on a data set: layouts, metrics, a resumable run, files for official servers."""
