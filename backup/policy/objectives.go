package policy

import (
	"fmt"
	"hash/fnv"
	"time"
)

// Schedule says when backups are made.
type Schedule struct {
	Every time.Duration // from one backup to the next; 0 = 24 hours
	// Jitter is the longest time that one begins later, so that many installations do not begin at once. 0 = a tenth of Every, below 0 = none.
	Jitter time.Duration
}

func (s Schedule) every() time.Duration {
	if s.Every <= 0 {
		return 24 * time.Hour
	}
	return s.Every
}

// Next returns when the backup of a name is due whose last one was made at a time. The jitter is drawn from both, so that a program that
// starts anew does not draw again. A zero last = at once.
func (s Schedule) Next(name string, last time.Time) time.Time {
	if last.IsZero() {
		return last
	}
	jitter := s.Jitter
	if jitter == 0 {
		jitter = s.every() / 10
	}
	next := last.Add(s.every())
	if jitter > 0 {
		h := fnv.New64a()
		fmt.Fprintf(h, "%s %d", name, last.UnixNano())
		next = next.Add(time.Duration(h.Sum64() % uint64(jitter)))
	}
	return next
}

// Missed returns how many backups there should have been between the last one and now, and were not; a run that is a jitter late is not missed.
func (s Schedule) Missed(last, now time.Time) int {
	if last.IsZero() {
		return 0
	}
	jitter := s.Jitter
	if jitter == 0 {
		jitter = s.every() / 10
	}
	late := now.Sub(last) - max(jitter, 0)
	return int(max(late, 0) / s.every())
}

// Objectives are what backups must live up to. A field of 0 asks for nothing.
type Objectives struct {
	RPO     time.Duration // recovery point: most that may be lost, which is the age of the newest backup
	RTO     time.Duration // recovery time: most that a restore may take, as the last drill measured it
	Verify  time.Duration // most that the last verification may be past
	Drill   time.Duration // likewise the last drill, which must have passed
	Lag     time.Duration // most that another place may be behind
	Copies  int           // of the data, the living one among them: the 3 of 3-2-1
	Media   int           // kinds of storage that they lie on: the 2
	OffSite int           // of them in another house: the 1
	Locked  int           // of them that nobody can delete before their time
}

// Place is one place where backups lie.
type Place struct {
	Name    string
	Medium  string // kind of storage, such as "disk" or "s3"
	OffSite bool
	Locks   bool      // it keeps objects against deletion
	Behind  time.Time // since when it lacks what others have; the zero time = it lacks nothing
	Fault   string    // why it cannot be asked; empty = it can
}

// Facts are what is known of the backups of one name.
type Facts struct {
	Now        time.Time
	Newest     time.Time // when the newest that can be restored was made; the zero time = there is none
	Verified   time.Time
	Drilled    time.Time // the last drill
	DrillOK    bool
	DrillTook  time.Duration
	Medium     string // of the living data, such as "disk"
	Places     []Place
	Anomalies  int // that nobody accepted
	Unreadable int // snapshots that are damaged
}

// Finding is one objective and how things are.
type Finding struct {
	Rule string `json:"rule"` // rpo, rto, verify, drill, lag, copies, media, off-site, locked, anomalies, damage
	Met  bool   `json:"met"`
	Want string `json:"want"`
	Have string `json:"have"`
}

// Check holds facts against the objectives, and finds also what needs none: anomalies and damage. Every objective that is set is in what it returns,
// met or not; whoever alerts takes those that are not.
func (o Objectives) Check(f Facts) []Finding {
	var out []Finding
	add := func(rule string, met bool, want, have string) { out = append(out, Finding{rule, met, want, have}) }
	age := func(t time.Time) string {
		if t.IsZero() {
			return "never"
		}
		return f.Now.Sub(t).Round(time.Second).String() + " ago"
	}
	within := func(rule string, t time.Time, most time.Duration) {
		if most > 0 {
			// What is dated in the future says nothing.
			add(rule, !t.IsZero() && f.Now.Sub(t) <= most && !t.After(f.Now.Add(time.Hour)), "at most "+most.String()+" ago", age(t))
		}
	}
	within("rpo", f.Newest, o.RPO)
	within("verify", f.Verified, o.Verify)
	if o.Drill > 0 {
		within("drill", f.Drilled, o.Drill)
		if d := &out[len(out)-1]; !f.Drilled.IsZero() && !f.DrillOK {
			d.Met, d.Have = false, d.Have+", and it failed"
		}
	}
	if o.RTO > 0 {
		have := "never measured"
		if f.DrillTook > 0 {
			have = f.DrillTook.Round(time.Millisecond).String()
		}
		add("rto", f.DrillOK && f.DrillTook > 0 && f.DrillTook <= o.RTO, "at most "+o.RTO.String(), have)
	}
	copies, off, locked := 1, 0, 0
	media := map[string]bool{f.Medium: true}
	for _, p := range f.Places {
		if o.Lag > 0 {
			have := "nothing is lacking"
			behind := time.Duration(0)
			if !p.Behind.IsZero() {
				behind = f.Now.Sub(p.Behind)
				have = "behind since " + age(p.Behind)
			}
			if p.Fault != "" {
				have = p.Fault
			}
			add("lag", p.Fault == "" && behind <= o.Lag, p.Name+" at most "+o.Lag.String()+" behind", have)
		}
		// A copy counts that has a snapshot as new as the objective wants.
		if p.Fault != "" || f.Newest.IsZero() || !p.Behind.IsZero() && f.Now.Sub(p.Behind) > max(o.Lag, o.RPO) {
			continue
		}
		copies++
		media[p.Medium] = true
		if p.OffSite {
			off++
		}
		if p.Locks {
			locked++
		}
	}
	for _, n := range []struct {
		rule       string
		want, have int
	}{{"copies", o.Copies, copies}, {"media", o.Media, len(media)}, {"off-site", o.OffSite, off}, {"locked", o.Locked, locked}} {
		if n.want > 0 {
			add(n.rule, n.have >= n.want, fmt.Sprint(n.want), fmt.Sprint(n.have))
		}
	}
	if f.Anomalies > 0 {
		add("anomalies", false, "0 that nobody accepted", fmt.Sprint(f.Anomalies))
	}
	if f.Unreadable > 0 {
		add("damage", false, "0 damaged snapshots", fmt.Sprint(f.Unreadable))
	}
	return out
}
