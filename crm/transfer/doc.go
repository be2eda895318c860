// Package transfer takes records in and out of a CRM by the file: imports (批量导入) that are rehearsed, resumed, reported and undone, and
// exports (批量导出) that can be traced. It decides nothing and seals nothing: each record goes through the door of its type in package guard, as the
// person who imports or exports it, so that a file brings or shows nothing that a page would not.
//
// # Imports
//
// A [Source] gives the rows of a file, one after the other: package csvfile reads CSV, package xlsx workbooks. A [Layout] says which columns a type
// has, under which names files have them, and how a text becomes a value. [Suggest] proposes a [Mapping] for a header; a person
// confirms it. An [Importer] then has these verbs:
//
//   - Rehearse is the import itself, with every transaction taken back: the report says what Run will say, and nothing stays.
//   - Run begins an import and stores it, batch by batch. The ids of its records follow from the import's id and the row's number, and its place
//     in the file is stored with each batch, so that an import that was cut off is gone on with by
//     [Importer.Resume] and stores nothing twice.
//   - [Importer.Rejected] gives back the rows that were refused, with the reasons.
//   - Undo puts what the import made into the recycle bin, and gives what it changed its former values back. What somebody changed since is
//     left, and counted; what belongs to an erased person stays erased, for the former values lie under that person's own key.
//
// A [Checker], such as one of crm/dedupe, says of each new row how surely it is there already: such a row is rejected, or stored, counted and listed (Matched). What the program needs to go on
// with an import, such as where an uploaded file lies and its key, is kept sealed beside it: see [Beside].
//
// An [Eraser], such as one of crm/privacy, knows somebody who was erased again by a phone number or the like: such a row is stored, counted and listed (Erased), or rejected with the rule erased
// and no field.
//
// A row that cannot be stored costs itself and no other row. Its reasons are pairs of a field and a rule, as in *crm.InvalidError, and never values. The
// row itself is kept sealed, under a person made for the import, for [KeepRejected]; [Importer.Sweep] ends it.
//
// An update changes no field that its caller may not see: its former value could not be kept for an undo, and a blind overwrite of a masked
// number is no work for a file. Such a row is rejected as not_open.
//
// # Exports
//
// An [Exporter] writes what guard.Records.Export gives into a [Sink], as CSV or as a workbook, with a first row that says who took it, a made-up record ([Canary]) by
// which a leaked file names its export, and no cell that a spreadsheet would calculate. Nothing is held back but a page of records.
//
// # Errors
//
// A *[RowError] names a row, a field and a rule. A *[FileError], which is an [ErrFile], says why a whole file cannot be read. [ErrOther] says that the file of a resumed import is not
// the one that it began with. Errors of guard come through wrapped.
//
// # Not protected
//
// Whoever may import into a type learns from the answer which rows were refused, and by a key field which of the records that they may
// list exist already; records that they may not list are not looked for. A unique field, such as the address of an employee, does tell.
// The program that reads the file has it in clear while it reads.
package transfer
