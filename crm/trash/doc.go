// Package trash has the rules of the recycle bin: what goes with a record, what comes back with it, and what is due to be purged. It
// imports the standard library and crm only; it stores nothing, and the time is an argument.
//
// What was deleted by one act has one group. Restoring a record brings back what its own act took along, and the records above it that it cannot be
// without; what somebody had deleted before on its own stays in the bin. Purging goes from below: nothing is purged that something still
// belongs to. A legal hold keeps a record and everything above it.
package trash
