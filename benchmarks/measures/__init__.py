"""One module a subject; each measures itself and its peers in interleaved rounds."""
