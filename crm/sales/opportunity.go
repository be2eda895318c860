package sales

import (
	"slices"
	"strconv"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/money"
)

// Stage is one stage of a pipeline.
type Stage struct {
	Name        string `json:"name"`
	Probability int64  `json:"probability"` // of winning, basis points
}

// Pipeline is the way of opportunities of one kind: its stages in their order. Won, lost and void are states beside it.
type Pipeline struct {
	crm.Meta[Pipeline]
	Name   string  `protect:"internal,indexed" json:"name"`
	Stages []Stage `protect:"internal" json:"stages"`
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (p *Pipeline) Validate() error {
	v := crm.Checks{Type: crm.TypePipeline}
	v.Team(p.Team)
	v.Str("name", p.Name, true, crm.MaxName)
	v.Required("stages", len(p.Stages) == 0)
	if len(p.Stages) > 30 {
		v.Add("stages", "too_long")
	}
	for i, s := range p.Stages {
		at := "stages." + strconv.Itoa(i)
		v.Str(at+".name", s.Name, true, 60)
		v.Range(at+".probability", s.Probability, 0, money.Basis)
		if slices.ContainsFunc(p.Stages[:i], func(t Stage) bool { return t.Name == s.Name }) {
			v.Add(at+".name", "repeated")
		}
	}
	return v.Err()
}

// Stage returns a stage by its name.
func (p *Pipeline) Stage(name string) (Stage, bool) {
	i := slices.IndexFunc(p.Stages, func(s Stage) bool { return s.Name == name })
	if i < 0 {
		return Stage{}, false
	}
	return p.Stages[i], true
}

// OpportunityState says whether an opportunity is still open.
type OpportunityState string

// The states of an opportunity. What is no longer open may be opened again.
const (
	OpportunityOpen OpportunityState = "open"
	OpportunityWon  OpportunityState = "won"
	OpportunityLost OpportunityState = "lost"
	OpportunityVoid OpportunityState = "void" // was none
)

// OpportunityLifecycle returns the transition table of opportunities.
func OpportunityLifecycle() crm.Lifecycle[OpportunityState] {
	return crm.NewLifecycle(crm.TypeOpportunity,
		[]OpportunityState{OpportunityOpen, OpportunityWon, OpportunityLost, OpportunityVoid},
		map[OpportunityState][]OpportunityState{
			OpportunityOpen: {OpportunityWon, OpportunityLost, OpportunityVoid},
			OpportunityWon:  {OpportunityOpen}, OpportunityLost: {OpportunityOpen}, OpportunityVoid: {OpportunityOpen},
		})
}

// LostReason says why an opportunity was lost.
type LostReason string

// The reasons of a loss.
const (
	LostPrice      LostReason = "price"
	LostCompetitor LostReason = "competitor"
	LostBudget     LostReason = "no_budget"
	LostSilence    LostReason = "no_answer"
	LostOther      LostReason = "other"
)

// Opportunity is a sale that may come. Its person is that of the contact it is talked over with.
type Opportunity struct {
	crm.Meta[Opportunity]
	Name        crm.Text             `protect:"personal" json:"name"`
	Customer    crm.ID[crm.Customer] `protect:"internal,indexed" json:"customer"`
	Contact     crm.ID[crm.Contact]  `protect:"internal" json:"contact"` // none is allowed
	Lead        crm.ID[crm.Lead]     `protect:"internal" json:"lead"`    // it came of; none is allowed
	Pipeline    crm.ID[Pipeline]     `protect:"internal,indexed" json:"pipeline"`
	Stage       string               `protect:"internal,indexed" json:"stage"` // of the pipeline
	StageSince  time.Time            `protect:"internal" json:"stage_since"`
	Probability int64                `protect:"internal" json:"probability"`    // basis points: the stage's, or what the owner thinks
	Amount      int64                `protect:"internal,indexed" json:"amount"` // minor units
	Currency    string               `protect:"internal" json:"currency"`       // ISO 4217
	CloseBy     time.Time            `protect:"internal,indexed" json:"close_by"`
	State       OpportunityState     `protect:"internal,indexed" json:"state"`
	LostReason  LostReason           `protect:"internal" json:"lost_reason"`
	ClosedAt    time.Time            `protect:"internal,indexed" json:"closed_at"`
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (o *Opportunity) Validate() error {
	v := crm.Checks{Type: crm.TypeOpportunity}
	v.Team(o.Team)
	v.Text("name", o.Name, true, crm.MaxName)
	v.Required("customer", o.Customer.IsZero())
	v.Required("pipeline", o.Pipeline.IsZero())
	v.Str("stage", o.Stage, true, 60)
	v.Range("probability", o.Probability, 0, money.Basis)
	v.NotNegative("amount", o.Amount)
	v.Currency("currency", o.Currency, o.Amount != 0)
	v.Time("close_by", o.CloseBy)
	states := OpportunityLifecycle()
	v.OneOf("state", string(o.State), names(states.States())...)
	if states.Has(o.State) && (o.State == OpportunityOpen) != o.ClosedAt.IsZero() {
		v.Add("closed_at", "mismatch")
	}
	if o.State == OpportunityLost {
		v.OneOf("lost_reason", string(o.LostReason), names([]LostReason{LostPrice, LostCompetitor, LostBudget, LostSilence, LostOther})...)
	} else if o.LostReason != "" {
		v.Add("lost_reason", "mismatch")
	}
	return v.Err()
}

func names[S ~string](list []S) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = string(s)
	}
	return out
}

// CheckUpdate tells whether the stored record prev may become o: a *crm.TransitionError for a step that the table does not have, an
// *crm.InvalidError with the rule fixed for a change of what was decided.
func (o *Opportunity) CheckUpdate(prev *Opportunity) error {
	if err := OpportunityLifecycle().CheckUpdate(prev.State, o.State); err != nil {
		return err
	}
	v := crm.Checks{Type: crm.TypeOpportunity}
	v.Unchanged("lead", o.Lead == prev.Lead)
	if prev.State != OpportunityOpen && o.State == prev.State {
		v.Unchanged("customer", o.Customer == prev.Customer)
		v.Unchanged("stage", o.Stage == prev.Stage && o.Pipeline == prev.Pipeline)
		v.Unchanged("amount", o.Amount == prev.Amount && o.Currency == prev.Currency)
		v.Unchanged("lost_reason", o.LostReason == prev.LostReason)
		v.SameTime("closed_at", o.ClosedAt, prev.ClosedAt)
	}
	return v.Err()
}

// Advance takes an open opportunity to a stage of its pipeline, forward or back, and to that stage's probability. A closed one
// is a *crm.TransitionError; a *crm.InvalidError has the rule mismatch for another pipeline and unknown_value for the stage.
func (o *Opportunity) Advance(p *Pipeline, stage string, at time.Time) error {
	if o.State != OpportunityOpen {
		return &crm.TransitionError{Type: crm.TypeOpportunity, From: known(o.State), To: "stage"}
	}
	v := crm.Checks{Type: crm.TypeOpportunity}
	s, ok := p.Stage(stage)
	if !ok {
		v.Add("stage", "unknown_value")
	}
	if p.ID != o.Pipeline {
		v.Add("pipeline", "mismatch")
	}
	if err := v.Err(); err != nil {
		return err
	}
	if o.Stage != stage {
		o.StageSince = at
	}
	o.Stage, o.Probability, o.UpdatedAt = stage, s.Probability, at
	return nil
}

// known keeps what is no state out of errors.
func known(s OpportunityState) string {
	if OpportunityLifecycle().Has(s) {
		return string(s)
	}
	return "unknown"
}

// Move takes the opportunity to another state at a time; why is for lost, else empty. Opened again, it has the probability of
// its stage only after Advance. Errors are a *crm.TransitionError, and a *crm.InvalidError for the reason.
func (o *Opportunity) Move(to OpportunityState, why LostReason, at time.Time) error {
	if err := OpportunityLifecycle().Check(o.State, to); err != nil {
		return err
	}
	next := *o
	next.State, next.LostReason, next.ClosedAt, next.UpdatedAt = to, why, at, at
	if to == OpportunityOpen {
		next.ClosedAt = time.Time{}
	}
	if err := next.Validate(); err != nil {
		return err
	}
	*o = next
	return nil
}

// Weighted returns what the opportunity is worth by its probability, in minor units, rounded half up: all of it when won, nothing when lost
// or void.
func (o *Opportunity) Weighted() int64 {
	switch o.State {
	case OpportunityWon:
		return o.Amount
	case OpportunityOpen:
		n, err := money.Share(o.Amount, o.Probability)
		if err == nil {
			return n
		}
	}
	return 0
}

// Bar is one stage of a funnel: how many open opportunities are in it and what they are worth, in minor units.
type Bar struct {
	Stage    string
	Count    int
	Amount   int64
	Weighted int64
}

// Funnel counts the open opportunities of a pipeline in one currency by stage, in the order of its stages; others are left out. A sum that
// does not fit is money.ErrOverflow.
func Funnel(p *Pipeline, currency string, list []*Opportunity) ([]Bar, error) {
	bars := make([]Bar, len(p.Stages))
	for i, s := range p.Stages {
		bars[i].Stage = s.Name
		for _, o := range list {
			if o.Deleted || o.State != OpportunityOpen || o.Pipeline != p.ID || o.Stage != s.Name || o.Currency != currency {
				continue
			}
			var err error
			bars[i].Count++
			if bars[i].Amount, err = money.Sum(bars[i].Amount, o.Amount); err != nil {
				return nil, err
			}
			bars[i].Weighted += o.Weighted() // at most the amount
		}
	}
	return bars, nil
}
