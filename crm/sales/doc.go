// Package sales has what is sold and what may become a sale: products, price lists, pipelines, opportunities, and the conversion of a
// lead. It imports the standard library and crm only; it stores nothing.
//
// Types embed crm.Meta and carry protect tags, so crm/guard protects them as it does those of package crm. Validate and CheckUpdate return
// *crm.InvalidError and *crm.TransitionError, with the rules that crm.FieldError lists.
//
// Amounts are int64 minor units of an ISO 4217 currency, quantities thousandths, rates and probabilities basis points: hundredths of a
// percent (see crm/money).
package sales
