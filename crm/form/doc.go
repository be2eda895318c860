// Package form has forms as data: fields that a team adds without a program, each with a kind and a class, and the entries that are written in
// them. It imports the standard library and crm only; it stores nothing.
//
// # Classes
//
// Every field has a class, as those of Go types do: a form with a field that lacks one is refused, and the class decides where an entry keeps the
// value. Public and internal values are clear, the others sealed under the person's key; a value in the wrong place is refused. A later
// version of a form may raise the class of a field and never lower it, nor change its kind: what old entries hold stays what it is.
//
// # Values
//
// A value is text in the one form of its kind: text and choice as it is, number a decimal such as -12.5 with at most the field's digits, money a
// decimal of its currency, bool true or false, date 2026-03-31, time RFC 3339 in UTC, choices in the order of the options with commas between, email and
// phone as typed, record the id of a record. [Form.Set] reads what was typed and writes that form.
//
// # Versions
//
// A draft may change; a published form does not, and [Form.Revise] makes the next draft. Entries name the form they were written in.
package form
