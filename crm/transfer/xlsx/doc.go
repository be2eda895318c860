// Package xlsx reads and writes workbooks for package transfer: [Open] makes a transfer.Source of a sheet, [NewSink] a transfer.Sink.
//
// Reading stands on github.com/xuri/excelize, which unpacks to memory here and never to temporary files, for what is in the workbook is personal data. What a workbook unpacks
// to is bounded before anything is unpacked; see [Options]. Formulas are not calculated: the value that was saved with them is read. A cell is
// read as the workbook shows it: a date of which only month and year are shown has no day here.
//
// Writing is our own, of inline strings, and streams: excelize's StreamWriter puts rows into a temporary file in clear. A workbook that [NewSink] has
// written holds texts only, one sheet, no formulas, no links.
package xlsx
