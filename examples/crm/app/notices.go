package app

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/authz/authn/session"
)

// Notice is one thing that happened to somebody's sign-in, as the log has it.
type Notice struct {
	At      time.Time
	What    string   // "sign_in", "failed", "signal", "factor", "password", "reset", "linked", "unlinked" or "roles"
	Words   []string // of a sign-in its methods, of a signal its name, of a factor what became of it
	Own     bool     // the person did it, or whoever signed in as them; false: an administrator, a provider or the program
	Session string
}

// mostNotices is how many events of an account are looked at.
const mostNotices = 200

// noticed are the events of the log that become notices. Failed ones of the others are tries of somebody who is signed in, and say nothing new.
var noticed = map[string]string{
	"session.sign_in": "sign_in", "session.signal": "signal", "account.factor": "factor", "account.password": "password", "account.reset": "reset",
	"account.linked": "linked", "account.unlinked": "unlinked", "account.roles": "roles",
}

// Notices are what happened to the sign-in of an account since a time, the newest first, at most 200 of them: sign-ins and failed ones, signals of theft, and each change of password,
// factors and links. They are for the person whom the account belongs to, who is told what others do with it (ASVS 5.0, 6.3.5 and 6.3.7).
func (a *App) Notices(ctx context.Context, acc *Account, since time.Time) ([]Notice, error) {
	found, err := a.Log.Query(ctx, audit.Filter{Tenant: Tenant, TargetType: "account", TargetID: acc.ID.String(), From: since}, math.MaxUint64, mostNotices)
	if err != nil {
		return nil, err
	}
	var out []Notice
	for _, e := range found {
		what, ok := noticed[e.Event.Action]
		if !ok || e.Event.Outcome != audit.Allowed && what != "sign_in" {
			continue
		}
		n := Notice{At: e.Event.Time, What: what, Own: e.Event.Actor == acc.Employee.String(), Session: e.Event.Session}
		switch what {
		case "sign_in":
			if e.Event.Outcome != audit.Allowed {
				n.What = "failed" // the reason is for the log: whoever tries to sign in could read it, too
				break
			}
			n.Words = strings.Fields(e.Event.Note)
		case "signal":
			n.Words = []string{e.Event.Note}
		case "factor":
			n.Words = []string{strings.ReplaceAll(e.Event.Note, " ", "_")}
		}
		out = append(out, n)
	}
	return out, nil
}

// News are the notices since the sign-in before that of this session, 90 days back at most: failed tries, signals, and every change, the person's own too, since it may not have
// been theirs. Without a sign-in before, they are those since this one.
func (a *App) News(ctx context.Context, acc *Account, s *session.Session) ([]Notice, error) {
	all, err := a.Notices(ctx, acc, s.Created.AddDate(0, 0, -90))
	if err != nil {
		return nil, err
	}
	end := slices.IndexFunc(all, func(n Notice) bool { return n.What == "sign_in" && n.Session == s.ID })
	if end < 0 { // more has happened since than is looked at
		end = len(all)
	} else if last := slices.IndexFunc(all[end+1:], func(n Notice) bool { return n.What == "sign_in" }); last >= 0 {
		end += 1 + last
	}
	return slices.DeleteFunc(all[:end], func(n Notice) bool {
		return n.What == "sign_in" || n.What == "signal" && n.Session == s.ID
	}), nil
}
