package review

import (
	"errors"
	"slices"
	"time"

	"github.com/crmguard/crmguard/authz"
)

// Why a campaign refuses.
var (
	ErrCampaign = errors.New("review: campaign without id, items or a time to decide") // or a grant without subject or role
	ErrSelf     = errors.New("review: nobody certifies their own grant")
	ErrReviewer = errors.New("review: not the reviewer of this grant")
	ErrNoItem   = errors.New("review: no such grant in this campaign")
	ErrOutcome  = errors.New("review: a decision keeps or revokes")
	ErrRevoked  = errors.New("review: a revocation stands")
	ErrClosed   = errors.New("review: outside the time of this campaign")
	ErrOpen     = errors.New("review: open grants, and the campaign is not due")
	ErrTwice    = errors.New("review: a grant is listed twice")
)

// Outcome is what a reviewer decided about a grant.
type Outcome string

// The outcomes. Open is the zero value.
const (
	Open    Outcome = ""
	Kept    Outcome = "kept"
	Revoked Outcome = "revoked"
)

// Item is one grant to be certified: does this subject still need this role?
type Item struct {
	Subject  string
	Role     string
	Reviewer string // who decides; change it to hand the item on
	Outcome  Outcome
	By       string    // who decided
	At       time.Time // when
}

// Campaign is a round of certification. It is a plain value: the program stores it, and saves it after each
// change. It is not safe for concurrent use.
type Campaign struct {
	ID     string
	Opened time.Time
	Due    time.Time // the first moment at which nobody decides any more
	Closed time.Time // zero until Close
	Items  []Item
}

// NewCampaign returns a campaign over items, all of them open. It refuses an item whose reviewer is missing
// or is its subject, and a grant that is listed twice.
func NewCampaign(id string, opened, due time.Time, items []Item) (*Campaign, error) {
	if id == "" || len(items) == 0 || !due.After(opened) {
		return nil, ErrCampaign
	}
	c := &Campaign{ID: id, Opened: opened, Due: due, Items: make([]Item, len(items))}
	seen := map[[2]string]bool{}
	for i, it := range items {
		switch k := [2]string{it.Subject, it.Role}; {
		case it.Subject == "" || it.Role == "":
			return nil, ErrCampaign
		case it.Reviewer == "":
			return nil, ErrReviewer
		case it.Reviewer == it.Subject:
			return nil, ErrSelf
		case seen[k]:
			return nil, ErrTwice
		default:
			seen[k] = true
		}
		c.Items[i] = Item{Subject: it.Subject, Role: it.Role, Reviewer: it.Reviewer}
	}
	return c, nil
}

// Decide records what by decided about a grant. It refuses the subject of the grant, whoever they review
// for, and everybody but its reviewer; a time before the opening, from the due time on, or after Close; and
// to keep what was revoked.
func (c *Campaign) Decide(subject, role string, outcome Outcome, by string, at time.Time) error {
	i := slices.IndexFunc(c.Items, func(it Item) bool { return it.Subject == subject && it.Role == role })
	switch {
	case i < 0:
		return ErrNoItem
	case by == subject:
		return ErrSelf
	case by == "" || by != c.Items[i].Reviewer:
		return ErrReviewer
	case outcome != Kept && outcome != Revoked:
		return ErrOutcome
	case !c.Closed.IsZero() || at.Before(c.Opened) || !at.Before(c.Due):
		return ErrClosed
	case c.Items[i].Outcome == Revoked && outcome != Revoked:
		return ErrRevoked
	}
	it := &c.Items[i]
	it.Outcome, it.By, it.At = outcome, by, at
	return nil
}

// Open returns the items that nobody has decided, for a reminder.
func (c *Campaign) Open() []Item {
	var out []Item
	for _, it := range c.Items {
		if it.Outcome == Open {
			out = append(out, it)
		}
	}
	return out
}

// Close ends the campaign. It returns, for each subject, the grants that are certified until the given time,
// as authz.Subject has them, and the items whose grants lapse: revoked ones, those that nobody decided, and
// those whose decision is not one that [Campaign.Decide] would have recorded. While it is not due, it
// refuses to let open items lapse.
func (c *Campaign) Close(at, until time.Time) (certified map[string][]authz.Grant, lapsed []Item, err error) {
	switch {
	case !c.Closed.IsZero() || at.Before(c.Opened):
		return nil, nil, ErrClosed
	case !until.After(at):
		return nil, nil, ErrCampaign
	case at.Before(c.Due) && len(c.Open()) > 0:
		return nil, nil, ErrOpen
	}
	lapse := map[[2]string]bool{} // of a grant that was stored twice, both lapse when one does
	for _, it := range c.Items {
		if !c.keeps(it) {
			lapse[[2]string{it.Subject, it.Role}] = true
		}
	}
	certified = map[string][]authz.Grant{}
	for _, it := range c.Items {
		if k := [2]string{it.Subject, it.Role}; lapse[k] {
			lapsed = append(lapsed, it)
			continue
		}
		certified[it.Subject] = append(certified[it.Subject], authz.Grant{Role: it.Role, Until: until})
	}
	c.Closed = at
	return certified, lapsed, nil
}

// keeps tells whether it has a decision to keep as Decide records it.
func (c *Campaign) keeps(it Item) bool {
	return it.Outcome == Kept && it.By != "" && it.By == it.Reviewer && it.By != it.Subject &&
		!it.At.Before(c.Opened) && it.At.Before(c.Due)
}
