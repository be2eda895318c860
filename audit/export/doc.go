// Package export sends the events of a log to a SIEM, at least once each, in
// the words of OCSF, CEF or ECS.
//
// # Use
//
// A [Pump] reads a log from a cursor, renders each event by a [Format] ([OCSF],
// [CEF], [ECS]) and gives the records to a [Sink]: [File], [Syslog] (RFC 5424
// over TLS) or [HTTP] (batches of JSON lines). docs/formats/export.md says what
// becomes of each field, and describes the cursor.
//
// # Proof
//
// Each record names the index of the event, its leaf hash and the head of the
// hash chain after it, so that any record can be checked against the log and
// its checkpoints, and a receiver sees a gap by the indices alone.
//
// # Personal data
//
// Details leave as their names and commitments. No record holds a value of a
// detail, not even of one that is known.
//
// # Delivery
//
// The cursor moves, durably, only after the sink acknowledged. A crash or a
// failure therefore sends again, and receivers drop what they have by index.
// Syslog has no acknowledgement: after each failure and start the Pump goes
// back by the overlap of the sink. A sink that fails or hangs stops the Pump
// and nothing else, and [Pump.Status] says so: the log is the buffer. Only with
// Options.MaxLag does the Pump give events up, while the sink fails, and then
// it first appends an event to the log that names the range.
package export
