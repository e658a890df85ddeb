"""Other people's wire formats, a package each of one shape: `request` in, `answer` out, `errors`. Pure."""
