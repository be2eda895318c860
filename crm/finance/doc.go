// Package finance has what is owed and paid: instalments of contracts and the receipts that pay them, invoices and credit notes,
// expenses, the ageing of receivables, and accounting periods. It imports the standard library and crm only; it stores nothing.
//
// What is paid, outstanding or overdue is never stored: [Balance] derives it from instalments and receipts at a given time. What was issued or
// received never changes: a credit note corrects an invoice, a reversal a receipt. Nothing is posted into a period that is closed
// ([Books.Post]).
//
// Amounts are int64 minor units of an ISO 4217 currency, rates basis points (see crm/money). Account and tax numbers are of the class
// financial, under the retention of taxes.
//
// Types embed crm.Meta and carry protect tags, so crm/guard protects them as it does those of package crm. Validate and CheckUpdate return
// *crm.InvalidError and *crm.TransitionError, with the rules that crm.FieldError lists.
package finance
