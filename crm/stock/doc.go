// Package stock has warehouses, what moves in and out of them, and the orders that move it (进销存). It imports the standard library and crm only;
// it stores nothing.
//
// Stock is a ledger: a [Movement] is never changed and never deleted, what is in a warehouse is the sum of its movements ([Levels]), and a
// mistake is undone by a counter movement ([Movement.Reverse]). [Post] refuses what would take any product in any warehouse below zero at any
// time, also when it is entered late: [ShortError].
//
// Quantities are thousandths of a product's unit, amounts int64 minor units of an ISO 4217 currency, rates basis points (see crm/money). Types
// embed crm.Meta and carry protect tags, so crm/guard protects them as it does those of package crm.
package stock
