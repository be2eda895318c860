package review_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/crmguard/crmguard/authz/review"
)

func TestMovers(t *testing.T) {
	sales := review.Assignment{Subject: "e1", Role: "sales", Team: "/east/"}
	export := review.Assignment{Subject: "e1", Role: "export", Team: "/east/"}
	west := func(a review.Assignment) review.Assignment { a.Team = "/west/"; return a }
	gone := func(a review.Assignment) review.Assignment { a.Left = true; return a }
	type list = []review.Assignment
	for _, c := range []struct {
		name          string
		before, after list
		want          []review.Change
	}{
		{"nothing changed", list{sales, export}, list{export, sales}, nil},
		{"nobody", nil, nil, nil},
		{"a joiner", nil, list{sales}, []review.Change{{"e1", review.Joined, "", "/east/", []string{"sales"}, nil, nil}}},
		{"a mover who keeps everything", list{sales, export}, list{west(sales), west(export)}, []review.Change{{"e1", review.Moved, "/east/", "/west/", nil, nil, []string{"export", "sales"}}}},
		{"a mover who gives one up", list{sales, export}, list{west(sales)}, []review.Change{{"e1", review.Moved, "/east/", "/west/", nil, []string{"export"}, []string{"sales"}}}},
		{"another role", list{sales}, list{export}, []review.Change{{"e1", review.Changed, "/east/", "/east/", []string{"export"}, []string{"sales"}, nil}}},
		{"a leaver who holds nothing", list{sales}, nil, []review.Change{{"e1", review.Left, "/east/", "", nil, []string{"sales"}, nil}}},
		{"a leaver who still holds a role", list{sales}, list{gone(sales)}, []review.Change{{"e1", review.Left, "/east/", "/east/", nil, nil, []string{"sales"}}}},
		{"a leaver who still holds it a month later", list{gone(sales)}, list{gone(sales)}, []review.Change{{"e1", review.Left, "/east/", "/east/", nil, nil, []string{"sales"}}}},
		{"a leaver who got one more", list{sales}, list{gone(sales), export}, []review.Change{{"e1", review.Left, "/east/", "/east/", []string{"export"}, nil, []string{"sales"}}}},
		{"back again", list{gone(sales)}, list{sales}, []review.Change{{"e1", review.Changed, "/east/", "/east/", nil, nil, []string{"sales"}}}},
	} {
		t.Run(c.name, func(t *testing.T) { assert.Equal(t, c.want, review.Movers(c.before, c.after)) })
	}
}

// TestConflicts: who holds two roles that exclude each other is named.
//
//crm:item 26
func TestConflicts(t *testing.T) {
	pairs := [][2]string{{"requester", "approver"}, {"admin", "auditor"}, {"sales", "sales"}}
	hold := func(roles ...string) (out []review.Assignment) {
		for _, r := range roles {
			out = append(out, review.Assignment{Subject: "e1", Role: r})
		}
		return out
	}
	assert.Empty(t, review.Conflicts(nil, pairs))
	assert.Empty(t, review.Conflicts(hold("requester", "admin", "sales"), pairs))
	assert.Empty(t, review.Conflicts(append(hold("requester"), review.Assignment{Subject: "e2", Role: "approver"}), pairs), "two people may")
	assert.Equal(t, []review.Conflict{{"e1", pairs[0]}, {"e1", pairs[1]}},
		review.Conflicts(hold("approver", "auditor", "requester", "admin"), pairs))
}

func ExampleMovers() {
	before := []review.Assignment{{Subject: "e1", Role: "sales", Team: "/east/"}, {Subject: "e2", Role: "support", Team: "/help/"}}
	after := []review.Assignment{
		{Subject: "e1", Role: "sales", Team: "/finance/"}, {Subject: "e1", Role: "finance", Team: "/finance/"},
		{Subject: "e2", Role: "support", Team: "/help/", Left: true},
	}
	for _, c := range review.Movers(before, after) {
		fmt.Println(c.Subject, c.Kind, "gained", c.Gained, "kept", c.Kept)
	}
	// Output:
	// e1 moved gained [finance] kept [sales]
	// e2 left gained [] kept [support]
}

func ExampleConflicts() {
	assignments := []review.Assignment{{Subject: "e1", Role: "requester"}, {Subject: "e1", Role: "approver"}}
	fmt.Println(review.Conflicts(assignments, [][2]string{{"requester", "approver"}}))
	// Output: [{e1 [requester approver]}]
}
