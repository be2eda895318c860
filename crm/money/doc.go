// Package money computes with amounts: lines of quotes, contracts and invoices, shares, parts that add up, and the
// decimal form. It imports the standard library only.
//
// # Units
//
// An amount is an int64 of minor units of a currency: cents of EUR, fen of CNY, whole yen of JPY. [Digits] says how
// many decimals the minor unit has by ISO 4217. Quantities are thousandths, so that 1.5 hours are 1500. Discounts and
// taxes are basis points: hundredths of a percent, 0 to 10,000.
//
// # Rounding
//
// A figure that does not come out even is rounded once, to the nearest minor unit, and half a unit away from zero: what
// commercial rounding (四舍五入) and Article 5 of Regulation (EC) No 1103/97 do ("exactly half-way ... rounded up"). The same
// rule for negative amounts makes a credit note the mirror image of its invoice. Half to even (IEEE 754 and GB/T 8170, which is about
// measured values) is not used: tax offices and accounts add up what is printed.
//
// The discount and the tax of each line are rounded, and a document's figures are the sums of its lines'. So the printed
// lines always add up to the printed total; against a tax computed on the sum the difference is at most half a minor unit for each
// line. A discount on the whole document is distributed over the lines first, to the unit ([Split]), so that each tax rate gets
// its part.
//
// # Errors
//
// [ErrOverflow] is a result that an int64 does not hold: no sum ever wraps. [ErrRange] is a figure that makes no sense, such
// as a discount of more than 10,000 basis points. [ErrSyntax] is text that is no amount.
package money
