package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/dedupe"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/app"
)

// couple is two customers, each with a contact, that are merged or parted.
type couple struct {
	keep, drop crm.UUID
	merge      string // id of their merge; "": there is none
}

// openedAs opens a data folder in this process, with the administrator.
func openedAs(t testing.TB, data string) (*app.App, guard.Caller) {
	t.Helper()
	a, err := app.Open(t.Context(), app.Config{Data: data})
	require.NoError(t, err)
	e, err := a.Owner(t.Context(), "")
	require.NoError(t, err)
	c, err := a.As(t.Context(), e, "test")
	require.NoError(t, err)
	return a, c
}

func customerOf(t testing.TB, a *app.App, id crm.UUID) crm.Customer {
	t.Helper()
	v, err := a.Customers.Get(t.Context(), app.System("test"), id)
	require.NoError(t, err)
	return *v.Value
}

func phoneOf(i int, keep bool) string {
	if keep {
		return fmt.Sprintf("+861380000%04d", i)
	}
	return fmt.Sprintf("+861390000%04d", i)
}

// couples makes n of them.
func couples(t testing.TB, data string, n int) []*couple {
	t.Helper()
	a, c := openedAs(t, data)
	defer func() { require.NoError(t, a.Close()) }()
	var all []*couple
	for i := range n {
		k := &couple{}
		for _, keep := range []bool{true, false} {
			v := &crm.Customer{Name: crm.NewText("Ann Lee " + strconv.Itoa(i)), Phone: crm.NewText(phoneOf(i, keep)), Kind: crm.PersonCustomer, Stage: crm.CustomerNew, Currency: "CNY"}
			_, err := a.Customers.Create(t.Context(), c, v)
			require.NoError(t, err)
			_, err = a.Contacts.Create(t.Context(), c, &crm.Contact{Customer: v.ID, Name: crm.NewText("Bea Kay")})
			require.NoError(t, err)
			if k.drop = v.ID.UUID(); keep {
				k.keep = v.ID.UUID()
			}
		}
		all = append(all, k)
	}
	return all
}

// contacts counts those of a customer.
func contacts(t testing.TB, a *app.App, id crm.UUID) int64 {
	t.Helper()
	n, err := a.Contacts.Count(t.Context(), app.System("test"), guard.Query{Clauses: []crm.Clause{{Column: "customer", Op: crm.Equal, Values: []crm.Value{crm.StringValue(id.String())}}}})
	require.NoError(t, err)
	return n
}

// whole checks that a couple is wholly merged or wholly apart, and tells which.
func (k *couple) whole(t testing.TB, a *app.App, i int) (merged bool) {
	t.Helper()
	keep, drop := customerOf(t, a, k.keep), customerOf(t, a, k.drop)
	merged = drop.Deleted
	want := map[bool][2]int64{true: {2, 0}, false: {1, 1}}[merged]
	assert.Equal(t, want, [2]int64{contacts(t, a, k.keep), contacts(t, a, k.drop)}, "contacts of a couple, merged: %v", merged)
	assert.Equal(t, phoneOf(i, !merged), keep.Phone.Expose())
	assert.Equal(t, phoneOf(i, false), drop.Phone.Expose())
	joined, err := a.Keeper.Joined(t.Context(), app.Tenant, keep.Person)
	require.NoError(t, err)
	assert.Len(t, joined, map[bool]int{true: 2, false: 1}[merged], "persons of a couple, merged: %v", merged)
	assert.False(t, keep.Deleted)
	return merged
}

// dedupeKills is how often each of the two tests kills.
func dedupeKills() int {
	if soak {
		return 20
	}
	return 1
}

// killMerges kills a serving process among merges, or among undoings, and looks that each is whole afterwards, none that was acknowledged is missing, and the rest can be
// done then.
func killMerges(t *testing.T, undo bool) {
	long(t)
	base := small(t, nil)
	const n = 24
	all := couples(t, base, n)
	act := func(a *app.App, c guard.Caller, k *couple, undo bool) error {
		if undo {
			id, err := crm.ParseUUID(k.merge)
			require.NoError(t, err)
			_, err = a.Duplicates.Customers.Undo(t.Context(), c, id)
			return err
		}
		keep, drop := customerOf(t, a, k.keep), customerOf(t, a, k.drop)
		m, err := a.Duplicates.Customers.Merge(t.Context(), c, dedupe.Target{ID: k.keep, Version: keep.Version}, dedupe.Target{ID: k.drop, Version: drop.Version}, dedupe.Choice{"phone"})
		if err == nil {
			k.merge = m.ID.String()
		}
		return err
	}
	if undo {
		a, c := openedAs(t, base)
		for _, k := range all {
			require.NoError(t, act(a, c, k, false))
		}
		require.NoError(t, a.Close())
	}
	done, ended, acknowledged, left := 0, 0, 0, 0
	for round := range dedupeKills() {
		data := copied(t, base)
		p := serve(t, data, nil)
		client := p.signIn(t, "admin")
		acks := make([]bool, n)
		var mu sync.Mutex
		count := 0
		jobs := make(chan int, n)
		for i := range n {
			jobs <- i
		}
		close(jobs)
		var wg sync.WaitGroup
		after, wait := 1+rand.IntN(n-6), time.Duration(rand.IntN(15_000))*time.Microsecond
		for range 3 {
			wg.Go(func() {
				for i := range jobs {
					path, body := "/api/v1/merges/"+all[i].merge+"/undo", ""
					if !undo {
						path, body = "/api/v1/customers/"+all[i].keep.String()+"/merge", `{"version":1,"drop":"`+all[i].drop.String()+`","drop_version":1,"take":["phone"]}`
					}
					req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, client.base+path, strings.NewReader(body))
					if err != nil {
						return
					}
					req.Header.Set("Content-Type", "application/json")
					r, err := client.Do(req)
					if err != nil {
						return // killed
					}
					r.Body.Close()
					if r.StatusCode != http.StatusOK {
						t.Errorf("status %d", r.StatusCode)
						return
					}
					mu.Lock()
					acks[i] = true
					if count++; count == after {
						time.AfterFunc(wait, func() { _ = p.cmd.Process.Kill() })
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		p.kill()

		a, c := openedAs(t, data)
		ended += a.Resumed
		open, err := a.Merges.Count(t.Context(), app.System("test"), guard.Query{Clauses: []crm.Clause{
			{Column: "state", Op: crm.In, Values: []crm.Value{crm.StringValue(string(crm.MergeJoining)), crm.StringValue(string(crm.MergeParting))}},
		}})
		require.NoError(t, err)
		assert.Zero(t, open, "none is left between its transaction and its persons")
		rest := 0
		for i, k := range all {
			changed := k.whole(t, a, i) != undo
			if acks[i] {
				acknowledged++
				assert.True(t, changed, "one that was acknowledged is missing")
			}
			if changed {
				done++
				continue
			}
			rest++
			copyOf := *k
			require.NoError(t, act(a, c, &copyOf, undo))
			assert.NotEqual(t, undo, k.whole(t, a, i), "what was left is done now")
		}
		left += rest
		require.NoError(t, a.Close())
		v, err := app.Verify(t.Context(), app.Config{Data: data})
		require.NoError(t, err)
		assert.True(t, v.OK(), "%+v", v.Rows)
		t.Logf("round %d: killed %v after %d were acknowledged; %d left and done then; %d records agree with the log", round, wait, after, rest, v.Rows.Rows)
	}
	t.Logf("%d kills: %d acknowledged, %d done, %d of them ended by the start, %d left and done afterwards", dedupeKills(), acknowledged, done, ended, left)
}

// TestKillMerge: kill -9 among merges.
//
//crm:item 12 partly
func TestKillMerge(t *testing.T) { killMerges(t, false) }

// TestKillUndoMerge: kill -9 among undoings of merges.
//
//crm:item 12 partly
func TestKillUndoMerge(t *testing.T) { killMerges(t, true) }

// TestDedupeCommand: pairs are printed without values, two records are merged with a choice and parted again; what cannot be meant is refused.
func TestDedupeCommand(t *testing.T) {
	data := small(t, nil)
	all := couples(t, data, 2)
	a, c := openedAs(t, data)
	v := customerOf(t, a, all[0].drop)
	v.Phone = crm.NewText(phoneOf(0, true))
	_, err := a.Customers.Update(t.Context(), c, &v)
	require.NoError(t, err)
	require.NoError(t, a.Close())
	keep, drop := all[0].keep.String(), all[0].drop.String()

	out := mustRun(t, nil, "dedupe", "--data", data)
	assert.Regexp(t, `(?m)^(`+keep+` `+drop+`|`+drop+` `+keep+`) certain [01]\.\d\d name: \w+, phone: normalised$`, out)
	assert.Contains(t, out, "4 records")
	for _, secret := range []string{"Ann", "Lee", "+86", "138"} {
		assert.NotContains(t, strings.ReplaceAll(strings.ReplaceAll(out, keep, ""), drop, ""), secret)
	}
	for _, bad := range [][]string{
		{keep}, {keep, drop}, {"--merge", keep}, {"--merge", keep, keep}, {"--merge", keep, "nonsense"}, {"--merge", keep, drop, "--keep", "phone"}, {"--merge", keep, drop, "--keep", "phone=x"},
		{"--merge", keep, drop, "--keep", "owner=" + drop}, {"--merge", "--resume", keep, drop}, {"--keep", "phone=" + drop}, {"--undo", "x"}, {"--undo", keep}, {"--type", "quote"}, {"--as", "nobody@demo.example"},
	} {
		said, code := run(t, nil, append([]string{"dedupe", "--data", data}, bad...)...)
		assert.NotZero(t, code, "%v: %s", bad, said)
		assert.NotContains(t, said, "Ann")
	}
	said := mustRun(t, nil, "dedupe", "--data", data, "--merge", keep, drop, "--keep", "phone="+drop, "--keep", "name="+keep)
	_, id, ok := strings.Cut(strings.TrimSpace(said), "; merge ")
	require.True(t, ok, said)
	assert.Contains(t, mustRun(t, nil, "dedupe", "--data", data, "--resume"), "0 merges and undoings were ended")
	assert.NotContains(t, mustRun(t, nil, "dedupe", "--data", data), drop)
	said = mustRun(t, nil, "dedupe", "--data", data, "--undo", id)
	assert.Contains(t, said, "undone: fields as before: phone; changed since and left: none; 1 records refer to "+drop)
	said, code := run(t, nil, "dedupe", "--data", data, "--undo", id)
	assert.NotZero(t, code)
	assert.Contains(t, said, "undone")
	assert.Contains(t, mustRun(t, nil, "dedupe", "--data", data, "--type", "contact"), "4 records")
	green(t, nil, "--data", data)
}
