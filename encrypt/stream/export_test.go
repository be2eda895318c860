package stream

// The constructors for any segment size, so that tests can afford every flip and every truncation.
var (
	NewWriterSize   = newWriter
	NewReaderSize   = newReader
	NewReaderAtSize = newReaderAt
)
