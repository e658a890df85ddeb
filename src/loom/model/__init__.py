"""What a stream is: values and signatures. No I/O, no clock, no task."""
