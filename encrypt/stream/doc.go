// Package stream seals attachments of any size: in segments, each of them authenticated with its
// number and whether it is the last, so that nothing can be cut off, left out, repeated, moved or
// appended unseen.
//
// Which type to choose: [Writer] seals, [Reader] opens from front to back, [ReaderAt] opens any part
// of a file or object without the rest (HTTP ranges, previews).
//
// # Format
//
// Tink's streaming AEAD AES256-GCM-HKDF with HKDF-SHA-256, 32 key bytes and segments of 1 MiB (or 4 KiB):
// byte for byte what tink-go, tink-java and tink-cc read and write with the templates
// AES256_GCM_HKDF_1MB and AES256_GCM_HKDF_4KB. docs/formats/stream.md has all of it. The
// stream holds neither key id nor associated data: who keeps it keeps those beside it.
//
// # Keys
//
// A key is 32 random bytes and may seal any number of streams: each has a key of its own, derived with
// a random salt of 32 bytes. The associated data say where the stream belongs (tenant, person, record);
// a stream moved elsewhere does not open.
//
// # Errors
//
// Whatever is wrong with a stream, its key or its associated data is [keys.ErrTampered] and nothing
// more. Errors of the underlying reader or writer are returned as they are. All errors are final:
// each later call returns the same.
//
// # Concurrency and memory
//
// Writer and Reader are for one goroutine and hold one segment. ReaderAt is safe for concurrent use,
// keeps two opened segments and borrows one more for each concurrent call.
//
// # Limits
//
// The length of the plaintext and where it is read can be seen. Reader hands out each segment as soon as it is authentic, so
// a stream that was cut between two segments fails only at its end: act on a Reader's data only after io.EOF. ReaderAt
// looks at the last segment first and has no such gap.
package stream
