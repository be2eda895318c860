// Package privacy keeps what data protection law wants a CRM to know of people beside their records: who was erased is known again, who asked
// for an erasure and what became of it, and whom a legal hold keeps.
//
// # The suppression list
//
// A [List] has a [Suppression] for each term by which an erased person could be known again: a phone number, an e-mail address, the number of an
// identity document. It is a mark, a keyed hash of the term as the blind indexes normalise it, with the day and the end of its time, and nothing else: no
// id of a person, no record, no clear term. guard.Guard.Erase fills it. A [Checker] asks it for new records, of whatever type, before an import or a
// form stores them: see transfer.Options.
//
//	list, err := privacy.Open(ctx, g, program, nil)
//	erasure, err := g.Erase(ctx, caller, person, &guard.EraseOptions{List: list})
//	check := privacy.NewChecker(leads, list)
//	erased, err := check.Erased(ctx, caller, authz.Import, rows)
//
// # Erasures and holds
//
// An [Erasure] is a request, its approval by somebody else, and the receipt of what guard.Guard.Erase did. [Holds] is the register of legal holds: a [Hold] is put on by one
// employee and lifted by two. Holds.Held is what encrypt.Options.Held wants:
//
//	keeper, err := encrypt.NewKeeper(kek, keys, &encrypt.Options{Held: func(ctx context.Context, tenant string, p [16]byte, _ []keys.Retention) (bool, error) {
//		return holds.Held(ctx, tenant, p)
//	}})
//
// The types are records like any other: the policy says who may do what with them. Their reasons are sealed under a person made for each, whom no erasure is about.
//
// # Errors
//
// Those of crm/guard. None has a term or a mark in it.
//
// # Not protected
//
// Whoever may make or import records learns, at the pace of their quota, whether somebody with a phone number was erased: that is what refusing and warning mean.
// Whoever holds the database, the key above all keys and the program can try phone numbers against the list, as against any blind index. A number that
// several people share is on the list when one of them was erased. Names alone are never on it. Times are days, but change numbers tell the order in which the database
// was written. What the list got after a backup was made is lost when that backup is restored.
package privacy
