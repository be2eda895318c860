package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Plan is everything that operators decide about the backups of one name, as a file.
type Plan struct {
	Schedule   Schedule
	Chain      *Chain // nil = every backup is full
	Gate       *Gate  // nil = nothing is unusual
	Retention  Retention
	Lock       bool // keep objects against deletion as long as the retention promises
	Objectives Objectives
}

// planFile is the form of the file, whose times are text: docs/formats/backup.md.
type planFile struct {
	Schedule struct {
		Every  span `json:"every"`
		Jitter span `json:"jitter"`
	} `json:"schedule"`
	Chain *struct {
		Length       int  `json:"length"`
		Age          span `json:"age"`
		Differential bool `json:"differential"`
		Scan         bool `json:"scan"`
	} `json:"chain"`
	Gate *struct {
		Changed float64 `json:"changed"`
		Removed float64 `json:"removed"`
		Entropy float64 `json:"entropy"`
		Rows    int64   `json:"rows"`
	} `json:"gate"`
	Retention struct {
		Last    int      `json:"last"`
		Within  span     `json:"within"`
		Hourly  int      `json:"hourly"`
		Daily   int      `json:"daily"`
		Weekly  int      `json:"weekly"`
		Monthly int      `json:"monthly"`
		Yearly  int      `json:"yearly"`
		Minimum int      `json:"minimum"`
		Hold    []string `json:"hold"`
	} `json:"retention"`
	Lock       bool `json:"lock"`
	Objectives struct {
		RPO     span `json:"rpo"`
		RTO     span `json:"rto"`
		Verify  span `json:"verify"`
		Drill   span `json:"drill"`
		Lag     span `json:"lag"`
		Copies  int  `json:"copies"`
		Media   int  `json:"media"`
		OffSite int  `json:"off_site"`
		Locked  int  `json:"locked"`
	} `json:"objectives"`
}

// span is a time such as 90m, 24h, 7d or 2w.
type span time.Duration

func (s *span) UnmarshalText(b []byte) error {
	text := string(b)
	for unit, of := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if number, ok := strings.CutSuffix(text, unit); ok {
			n, err := strconv.ParseInt(number, 10, 32)
			if err != nil || n < 0 || n > 36500 {
				return errSpan
			}
			*s = span(time.Duration(n) * of)
			return nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return errSpan
	}
	*s = span(d)
	return nil
}

var errSpan = errors.New("policy: a time is like 90m, 24h, 7d or 2w")

// Parse reads a plan. Unknown fields, and what could not be meant, are errors: docs/formats/backup.md says which there are.
func Parse(b []byte) (*Plan, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var f planFile
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("policy: the plan cannot be read: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("policy: the plan cannot be read: something follows it")
	}
	p := &Plan{Lock: f.Lock,
		Schedule: Schedule{time.Duration(f.Schedule.Every), time.Duration(f.Schedule.Jitter)},
		Retention: Retention{Last: f.Retention.Last, Within: time.Duration(f.Retention.Within), Hourly: f.Retention.Hourly, Daily: f.Retention.Daily,
			Weekly: f.Retention.Weekly, Monthly: f.Retention.Monthly, Yearly: f.Retention.Yearly, Minimum: f.Retention.Minimum, Hold: f.Retention.Hold},
		Objectives: Objectives{RPO: time.Duration(f.Objectives.RPO), RTO: time.Duration(f.Objectives.RTO), Verify: time.Duration(f.Objectives.Verify),
			Drill: time.Duration(f.Objectives.Drill), Lag: time.Duration(f.Objectives.Lag), Copies: f.Objectives.Copies, Media: f.Objectives.Media,
			OffSite: f.Objectives.OffSite, Locked: f.Objectives.Locked},
	}
	if c := f.Chain; c != nil {
		p.Chain = &Chain{Length: c.Length, Age: time.Duration(c.Age), Differential: c.Differential, Scan: c.Scan}
	}
	if g := f.Gate; g != nil {
		p.Gate = &Gate{Changed: g.Changed, Removed: g.Removed, Entropy: g.Entropy, Rows: g.Rows}
	}
	return p, p.Valid()
}

// Valid refuses what could not be meant.
func (p *Plan) Valid() error {
	if err := p.Retention.Valid(); err != nil {
		return err
	}
	o, s := p.Objectives, p.Schedule
	for _, d := range []time.Duration{s.Every, o.RPO, o.RTO, o.Verify, o.Drill, o.Lag} {
		if d < 0 {
			return errors.New("policy: a plan has a negative time")
		}
	}
	for _, n := range []int{o.Copies, o.Media, o.OffSite, o.Locked} {
		if n < 0 {
			return errors.New("policy: a plan has a negative number")
		}
	}
	if o.RPO > 0 && s.every()+max(s.Jitter, 0) > o.RPO {
		return fmt.Errorf("policy: a backup every %v cannot meet a recovery point of %v", s.every(), o.RPO)
	}
	if c := p.Chain; c != nil && (c.Length < 0 || c.Age < 0) {
		return errors.New("policy: a chain has a negative length or age")
	}
	if g := p.Gate; g != nil {
		for _, x := range []float64{g.Changed, g.Removed, g.Entropy} {
			if x < 0 || x > 1 {
				return errors.New("policy: a share of a gate is not between 0 and 1")
			}
		}
	}
	if p.Lock && p.Retention.Until(time.Now(), "", nil).IsZero() {
		return errors.New("policy: the retention promises no time to lock for")
	}
	return nil
}
