// Package sandbox restores a backup so that no real person is in it: a database of the true shape for developers, testers and
// analysts.
//
// [Sink] stands in front of any [backup.Sink] and changes each row before that one sees it, by a [Rule] for each column: keep,
// null, an invented name, phone or text in its place, an id made another one, a date moved. It needs no key of any person: what is
// sealed is never opened. The program puts an invented value there and seals it under keys of the sandbox's own
// ([Options].Seal), which come from nowhere but this run. Restore without RestoreOptions.Keys, and with Tombstones as ever.
//
// # Refused by default
//
// A table that no rule names, and a column that no rule of its table names, is a [RefusedError]: a column that somebody adds later
// cannot leak by being forgotten. Tables are looked at before anything is read, columns before the first row of their
// table, and a sink makes nothing lasting after an error. Restore into a Sink with no sink behind it first, and all columns are
// looked at before a single row is written.
//
// # Inventions
//
// An [Inventor] draws a random key and makes every invention with it: the same value, id or person gives the same invention within a
// sandbox, so that joins, duplicates and references look as they did, and two sandboxes share none. Without the key nobody can
// compute which invention stands for whom, or confirm a guess. [Inventor.Forget] ends it. Invented phones are of the
// numbers +1 NPA 555 01XX, which are set aside for fiction, e-mail addresses lie below .invalid, and Chinese identity
// numbers have a region that is not given out: none of them reaches anybody.
//
// # What stays, and what that means
//
// A sandbox is as anonymous as its rules are strict, and not more. What is left for somebody who knows the source, or enough about a
// person in it, to link rows by:
//
//   - Columns that are kept: cities, job titles, product names, amounts. A rare combination of them, and any amount to the cent,
//     points to one person. Small groups stay small. Free text belongs under Text, never under Keep.
//   - The graph: how many orders a customer has, who reports to whom, who shares an account. References are kept intact on purpose.
//   - Which fields have a value and which have none, how many rows there are, and which values were equal.
//   - Times: all dates of a person move by the same time, so that what lies between them stays as it was.
//   - What the schema itself says. A sink that makes its tables from the snapshot, as sqlsource does for SQLite, takes their SQL as it is,
//     with words in defaults, checks and views, and the last number that autoincrement gave.
//
// So by default call a sandbox pseudonymous and treat it so. It is anonymous where nothing above singles a person out by
// reasonable means, which depends on the data and which nobody can promise in a package comment. Test by looking for groups of one.
//
// # Tombstones
//
// A sandbox has no key of the source, so nobody in it can be brought back, erased or not. A program that is handed the
// [backup.Tombstones] leaves out what was sealed under destroyed keys instead of inventing it.
package sandbox
