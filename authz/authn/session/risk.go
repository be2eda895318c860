package session

import (
	"errors"
	"slices"
	"strings"
	"time"
)

// Signal is a sign that somebody else may be using a session or an account.
type Signal string

// The signals.
const (
	NewDevice        Signal = "new_device"        // a sign-in from a device that the person was not known by
	ImpossibleTravel Signal = "impossible_travel" // faster than an airliner from the last place
	ChangedAgent     Signal = "changed_agent"     // another browser or system in one session
	TwoNetworks      Signal = "two_networks"      // one session used from two networks in turn
)

// Reaction is what a signal leads to. The zero Reaction is the default of its signal.
type Reaction uint8

// The reactions, the mildest first.
const (
	Default      Reaction = iota
	Ignore                // nothing
	Notify                // it stands in Session.Signals: the composition tells the person and the log
	DemandStepUp          // and the session serves again only after a step-up
	EndSession            // the session ends
)

var defaultReactions = map[Signal]Reaction{
	NewDevice: Notify, ImpossibleTravel: DemandStepUp, ChangedAgent: EndSession, TwoNetworks: DemandStepUp,
}

func (o *Options) reaction(s Signal) Reaction {
	if r := o.Reactions[s]; r != Default {
		return r
	}
	return defaultReactions[s]
}

// ErrRisk: a signal has ended the session, or a sign-in. Of a session it is a *RiskError.
var ErrRisk = errors.New("session: ended by a risk signal")

// RiskError is an ErrRisk that says whose session was ended by which signals, for who tells the person. It is not for whoever asked.
type RiskError struct {
	Person, Session string
	Signals         []Signal
}

// Error says no more than ErrRisk.
func (*RiskError) Error() string { return ErrRisk.Error() }

// Is makes it an ErrRisk.
func (*RiskError) Is(target error) bool { return target == ErrRisk }

const (
	fastest    = 1000.0           // km/h, an airliner
	nearby     = 300.0            // km: within the error of locators
	atOnce     = 10 * time.Minute // between two uses that count as at once
	stays      = 4                // networks that are remembered of a session
	maxSignals = 4
)

// travelled tells whether nobody gets from one stay to a place in the time between.
func travelled(from stay, to Place, now time.Time) bool {
	d := distance(from.Place, to)
	if d < nearby {
		return false
	}
	hours := now.Sub(time.UnixMilli(from.At)).Abs().Hours()
	return d > fastest*hours
}

// family tells IPv6 from IPv4: a browser of both uses them in turn, which is no sign of anything.
func family(network string) bool { return strings.Contains(network, ":") }

// known returns the stay in a network, or nil.
func known(all []stay, network string) *stay {
	if i := slices.IndexFunc(all, func(s stay) bool { return s.Place.Network == network }); i >= 0 {
		return &all[i]
	}
	return nil
}

// returned tells whether network was in use shortly before, and another one of its family after it.
func returned(all []stay, network string, now time.Time) bool {
	all = slices.DeleteFunc(slices.Clone(all), func(s stay) bool { return family(s.Place.Network) != family(network) })
	last := len(all) - 1
	i := slices.IndexFunc(all, func(s stay) bool { return s.Place.Network == network })
	return i >= 0 && i < last && now.Sub(time.UnixMilli(all[i].At)) < atOnce && now.Sub(time.UnixMilli(all[last].At)) < atOnce
}

// move notes that a session is used from a place now.
func move(all []stay, p Place, now time.Time) []stay {
	all = slices.DeleteFunc(slices.Clone(all), func(s stay) bool { return s.Place.Network == p.Network })
	all = append(all, stay{p, now.UnixMilli()})
	return all[max(0, len(all)-stays):]
}
