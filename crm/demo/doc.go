// Package demo makes a CRM full of people who do not exist: customers with contacts, leads, follow-ups, opportunities, quotes, contracts and tickets, two thirds of
// them Chinese and a third English, as many as asked for.
//
//	g := demo.New(&demo.Options{Seed: 1, Staff: sellers})
//	for i := range 1_000_000 {
//		set := g.Set(i) // a customer and what belongs to it
//	}
//
// [Load] stores them through the doors of crm/guard, in batches, and goes on where it was cut off.
//
// # The same everywhere
//
// The i-th set follows from seed, staff and i alone, byte for byte on every platform, ids included; it is made on demand, so that memory stays flat, and the sets of a smaller size are
// the first ones of a larger. A digest in the tests holds it to that.
//
// # Nobody
//
// Names are drawn from lists of frequent ones. Mail is in the domains of RFC 2606, example.com and its kin. Telephone numbers are of ranges that are kept for fiction: 555-01xx in
// North America, those of Ofcom for drama in the United Kingdom, those of the ACMA in Australia; China keeps none, so those numbers begin with 154, 160, 161, 163, 164, 168
// and 169, which no operator has been given. There are about 120,000 of the former: in larger worlds English customers share them. Identity numbers
// are of a region code that is not given out.
//
// # Duplicates
//
// Two customers of a hundred are another one again, with errors of typing: [Generator.Twin] says of which, and what was done to it.
package demo
