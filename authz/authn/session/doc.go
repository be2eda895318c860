// Package session keeps people signed in: it makes sessions, checks them on every request, lets a person step up, and
// ends them. It imports the standard library and package authn only.
//
//	m, err := session.New(store, sealer, [][]byte{key}, nil)
//	epoch, err := m.Epoch(ctx, tenant, person)                    // before the account and its factors are looked at
//	s, token, err := m.Start(ctx, session.SignIn{Tenant: tenant, Person: person, Epoch: epoch, Methods: shown, ...})
//	cookie.Write(w, token)
//	...
//	s, err := m.Check(ctx, cookie.Read(r), session.VisitOf(r))    // on every request
//	err = m.Fresh(s, session.Export)                              // before such an act
//
// # The token
//
// A [Token] is 256 random bits. It is in the cookie and nowhere else: the store has a hash of it under a key
// (HMAC-SHA-256), so who reads the store signs in nowhere. It prints as ***. Start and StepUp always make a new one,
// and the one before is dead in the same transaction, so an id that somebody planted or saw before a sign-in is worth
// nothing after it.
//
// # How long
//
// A session ends after [Limits].Idle without use and after Limits.Absolute at all, by default 30 minutes and 12
// hours. A person with several roles has the strictest limits of them. When a session was used last is written at
// most once a minute, and counted from what was written: a session may end up to that much early, never late.
//
// # Thrown out
//
// Each person has an epoch in the store, a number that only grows. A session of an older epoch is dead, or, with
// [Options].Roles, gets the roles that the person has now before it serves. The store is asked on every request and
// nothing is cached, so what one process ends or changes holds in all of them with the next request. A sign-in that
// began before its person was thrown out does not come in after: Start refuses an epoch that has moved.
//
// # Fresh, and doubted
//
// [Manager.Fresh] asks whether the person has shown a method that counts within five minutes, for the acts that want
// it. Signals of theft (a new device, travel that nobody travels, another agent, two networks in turn) notify, ask
// for a step-up or end the session, as [Options].Reactions says. Of a doubted session Check returns [ErrStepUp] until
// [Manager.StepUp].
//
// # What is stored
//
// docs/formats/sessions.md. Device and place are personal: kept coarse (a browser's family, a network and not an
// address), and sealed through a [Sealer]. A row carries a MAC under the same key as the hashes: a row that was
// changed or moved to another person is refused. Whoever writes to the store can still delete rows, and can put back
// an old row together with the old epoch.
//
// # Errors
//
// Start, Check and StepUp answer [authn.ErrRefused] whatever failed, with a reason for the log ([authn.Reason]):
// [ErrNone], [ErrExpired], [ErrStale], [ErrForged], [ErrRisk], [ErrWeak], or that of the store or sealer. [ErrStepUp]
// is not a refusal. The other methods answer what failed.
//
// # Not covered
//
// Verifying factors, cross-site requests (net/http.CrossOriginProtection), and a thief on the same machine and
// network who has the cookie.
//
// A Manager is safe for concurrent use.
package session
