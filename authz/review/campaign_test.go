package review_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/authz/review"
)

var (
	opened = time.Date(2026, 7, 1, 9, 0, 0, 0, time.UTC)
	due    = opened.AddDate(0, 0, 14)
	during = opened.AddDate(0, 0, 3)
	until  = opened.AddDate(1, 0, 0)
)

func campaign(t testing.TB) *review.Campaign {
	t.Helper()
	c, err := review.NewCampaign("2026-q3", opened, due, []review.Item{
		{Subject: "e1", Role: "sales", Reviewer: "e2"},
		{Subject: "e1", Role: "export", Reviewer: "e2"},
		{Subject: "e2", Role: "manager", Reviewer: "e3"},
	})
	require.NoError(t, err)
	return c
}

func TestNewCampaignRefuses(t *testing.T) {
	one := review.Item{Subject: "e1", Role: "sales", Reviewer: "e2"}
	for _, c := range []struct {
		name  string
		id    string
		due   time.Time
		items []review.Item
		err   error
	}{
		{"no id", "", due, []review.Item{one}, review.ErrCampaign},
		{"no items", "q", due, nil, review.ErrCampaign},
		{"no time", "q", opened, []review.Item{one}, review.ErrCampaign},
		{"no subject", "q", due, []review.Item{{Role: "sales", Reviewer: "e2"}}, review.ErrCampaign},
		{"no role", "q", due, []review.Item{{Subject: "e1", Reviewer: "e2"}}, review.ErrCampaign},
		{"no reviewer", "q", due, []review.Item{{Subject: "e1", Role: "sales"}}, review.ErrReviewer},
		{"its own reviewer", "q", due, []review.Item{one, {Subject: "e2", Role: "x", Reviewer: "e2"}}, review.ErrSelf},
		{"twice", "q", due, []review.Item{one, one}, review.ErrTwice},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := review.NewCampaign(c.id, opened, c.due, c.items)
			require.ErrorIs(t, err, c.err)
		})
	}
	c, err := review.NewCampaign("q", opened, due, []review.Item{{Subject: "e1", Role: "sales", Reviewer: "e2", Outcome: review.Kept, By: "e2", At: during}})
	require.NoError(t, err)
	assert.Len(t, c.Open(), 1, "a campaign begins open, whatever its items say")
}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		name, subject, role string
		outcome             review.Outcome
		by                  string
		at                  time.Time
		err                 error
	}{
		{"kept", "e1", "sales", review.Kept, "e2", during, nil},
		{"revoked", "e1", "sales", review.Revoked, "e2", during, nil},
		{"at the opening", "e1", "sales", review.Kept, "e2", opened, nil},
		{"one's own grant", "e1", "sales", review.Kept, "e1", during, review.ErrSelf},
		{"one's own grant, as the reviewer of others", "e2", "manager", review.Kept, "e2", during, review.ErrSelf},
		{"another reviewer", "e1", "sales", review.Kept, "e3", during, review.ErrReviewer},
		{"nobody", "e1", "sales", review.Kept, "", during, review.ErrReviewer},
		{"no such role", "e1", "admin", review.Kept, "e2", during, review.ErrNoItem},
		{"no such person", "e9", "sales", review.Kept, "e2", during, review.ErrNoItem},
		{"no decision", "e1", "sales", review.Open, "e2", during, review.ErrOutcome},
		{"no such decision", "e1", "sales", "maybe", "e2", during, review.ErrOutcome},
		{"too early", "e1", "sales", review.Kept, "e2", opened.Add(-1), review.ErrClosed},
		{"too late", "e1", "sales", review.Kept, "e2", due, review.ErrClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := campaign(t)
			err := q.Decide(c.subject, c.role, c.outcome, c.by, c.at)
			if c.err != nil {
				require.ErrorIs(t, err, c.err)
				assert.Equal(t, campaign(t), q, "a refusal changes nothing")
				return
			}
			require.NoError(t, err)
			assert.Len(t, q.Open(), 2)
		})
	}
}

func TestARevocationStands(t *testing.T) {
	q := campaign(t)
	require.NoError(t, q.Decide("e1", "sales", review.Kept, "e2", during))
	require.NoError(t, q.Decide("e1", "sales", review.Revoked, "e2", during))
	require.ErrorIs(t, q.Decide("e1", "sales", review.Kept, "e2", during), review.ErrRevoked)
}

func TestClose(t *testing.T) {
	q := campaign(t)
	require.NoError(t, q.Decide("e1", "sales", review.Kept, "e2", during))
	require.NoError(t, q.Decide("e1", "export", review.Revoked, "e2", during))
	for _, c := range []struct {
		at, until time.Time
		err       error
	}{
		{during, until, review.ErrOpen}, {opened.Add(-1), until, review.ErrClosed}, {due, due, review.ErrCampaign},
	} {
		_, _, err := q.Close(c.at, c.until)
		require.ErrorIs(t, err, c.err)
		assert.True(t, q.Closed.IsZero())
	}
	certified, lapsed, err := q.Close(due, until)
	require.NoError(t, err)
	assert.Equal(t, map[string][]authz.Grant{"e1": {{Role: "sales", Until: until}}}, certified)
	require.Len(t, lapsed, 2)
	assert.Equal(t, review.Revoked, lapsed[0].Outcome)
	assert.Equal(t, review.Open, lapsed[1].Outcome, "what nobody decided lapses")
	_, _, err = q.Close(due, until)
	require.ErrorIs(t, err, review.ErrClosed)
	require.ErrorIs(t, q.Decide("e2", "manager", review.Kept, "e3", during), review.ErrClosed)
}

func TestCloseEarlyWhenAllIsDecided(t *testing.T) {
	q := campaign(t)
	for _, it := range q.Open() {
		require.NoError(t, q.Decide(it.Subject, it.Role, review.Kept, it.Reviewer, during))
	}
	certified, lapsed, err := q.Close(during, until)
	require.NoError(t, err)
	assert.Empty(t, lapsed)
	assert.Len(t, certified, 2)
}

// TestStoredDecisionsAreNotBelieved keeps what was stored by other means than Decide from certifying.
func TestStoredDecisionsAreNotBelieved(t *testing.T) {
	for name, change := range map[string]func(*review.Item){
		"by the subject":  func(it *review.Item) { it.By, it.Reviewer = it.Subject, it.Subject },
		"by another one":  func(it *review.Item) { it.By = "e9" },
		"by nobody":       func(it *review.Item) { it.By, it.Reviewer = "", "" },
		"too late":        func(it *review.Item) { it.At = due },
		"too early":       func(it *review.Item) { it.At = time.Time{} },
		"another outcome": func(it *review.Item) { it.Outcome = "certified" },
	} {
		t.Run(name, func(t *testing.T) {
			q := campaign(t)
			require.NoError(t, q.Decide("e1", "sales", review.Kept, "e2", during))
			stored, err := json.Marshal(q)
			require.NoError(t, err)
			var back review.Campaign
			require.NoError(t, json.Unmarshal(stored, &back))
			assert.Equal(t, *q, back)
			change(&back.Items[0])
			certified, lapsed, err := back.Close(due, until)
			require.NoError(t, err)
			assert.Empty(t, certified)
			assert.Len(t, lapsed, 3)
		})
	}
}

func TestAGrantStoredTwiceLapsesWithEither(t *testing.T) {
	q := campaign(t)
	require.NoError(t, q.Decide("e1", "sales", review.Kept, "e2", during))
	twin := q.Items[0]
	twin.Outcome = review.Revoked
	q.Items = append(q.Items, twin)
	certified, lapsed, err := q.Close(due, until)
	require.NoError(t, err)
	assert.Empty(t, certified)
	assert.Len(t, lapsed, 4)
}

func ExampleCampaign() {
	c, err := review.NewCampaign("2026-q3", opened, due, []review.Item{
		{Subject: "e1", Role: "sales", Reviewer: "e2"},
		{Subject: "e1", Role: "export", Reviewer: "e2"},
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(c.Decide("e1", "sales", review.Kept, "e1", during))
	fmt.Println(c.Decide("e1", "sales", review.Kept, "e2", during))
	for _, it := range c.Open() {
		fmt.Println("remind", it.Reviewer, "of", it.Subject, it.Role)
	}
	certified, lapsed, err := c.Close(due, until)
	if err != nil {
		panic(err)
	}
	fmt.Println("certified", len(certified["e1"]), "lapsed", lapsed[0].Role)
	// Output:
	// review: nobody certifies their own grant
	// <nil>
	// remind e2 of e1 export
	// certified 1 lapsed export
}
