"""Bundles from elsewhere: fetched only when asked, pinned by their hash, checked before they are put in place."""
