package outbox_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit/filestore"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/outbox"
	"github.com/crmguard/crmguard/crm/sqlstore"
	keystore "github.com/crmguard/crmguard/encrypt/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
)

// onDisk opens an outbox whose records, keys and log lie in a folder.
func onDisk(t testing.TB, dir string, opts *outbox.Options) *rig {
	t.Helper()
	w, rd, err := dialect.OpenSQLite(t.Context(), filepath.Join(dir, "crm.db"))
	require.NoError(t, err)
	t.Cleanup(func() { rd.Close(); w.Close() })
	keyStore, err := keystore.Open(t.Context(), w, "sqlite", &keystore.Options{Reads: rd})
	require.NoError(t, err)
	events, err := filestore.Open(filepath.Join(dir, "log"), nil)
	require.NoError(t, err)
	s, err := sqlstore.Open(t.Context(), w, rd, dialect.SQLite)
	require.NoError(t, err)
	r := newRigOn(t, s, keyStore, events, dir, opts)
	t.Cleanup(func() { r.log.Close() })
	return r
}

// TestKilledWorker is the process that TestKill kills: it makes and changes customers and sends what changed, until it is dead.
func TestKilledWorker(t *testing.T) {
	dir := os.Getenv("CRMGUARD_OUTBOX_DIR")
	if dir == "" {
		t.Skip("it is run by TestKill")
	}
	cert, err := os.ReadFile(filepath.Join(dir, "cert.pem"))
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(cert))
	r := onDisk(t, dir, &outbox.Options{TLS: &tls.Config{RootCAs: pool}, InsecureLocal: true, Timeout: 2 * time.Second})
	fmt.Println("ready")
	for n := 0; ; n++ {
		r.pass(time.Minute)
		for i := range 1 + n%4 {
			v := r.customer(t, fmt.Sprintf("Customer %d %d", n, i))
			if i%2 == 0 {
				require.NoError(t, r.customers.Act(t.Context(), r.admin, "update", v.ID.UUID(), 0, func(c *crm.Customer) error { c.City = "Bath"; return nil }))
			}
		}
		r.round(t)
	}
}

// TestKill kills a process with -9 in the middle of collecting and sending: afterwards every record was told in its newest version, each message has one
// content, and what came twice came under one id.
func TestKill(t *testing.T) {
	kills := 3
	if os.Getenv("CRMGUARD_SOAK") != "" {
		kills = 25
	}
	if testing.Short() {
		t.Skip("the race detector makes SQLite very slow")
	}
	dir := t.TempDir()
	v := newReceiver(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: v.Certificate().Raw}), 0o600))
	t.Run("begin", func(t *testing.T) { onDisk(t, dir, v.options()).endpoint(t, v.URL) })
	var got []message
	for n := range kills {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledWorker$", "-test.timeout=5m")
		cmd.Env = append(os.Environ(), "CRMGUARD_OUTBOX_DIR="+dir)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		_, err = out.Read(make([]byte, 5))
		require.NoError(t, err)
		time.Sleep(time.Duration(200+rand.IntN(900)) * time.Millisecond) // it dies at any moment of its work
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			r := onDisk(t, dir, v.options())
			r.pass(time.Duration(n+1) * 48 * time.Hour) // whatever waits is due
			for range 100 {
				if made, sent := r.round(t); made+sent == 0 {
					break
				}
			}
			got = append(got, v.taken()...)
			r.whole(t, got)
		})
	}
	twice := map[string]bool{}
	seen := map[string]bool{}
	for _, m := range got {
		twice[m.id] = twice[m.id] || seen[m.id]
		seen[m.id] = true
	}
	n := 0
	for _, two := range twice {
		if two {
			n++
		}
	}
	t.Logf("%d kills, %d messages under %d ids, %d of them came again", kills, len(got), len(seen), n)
}

// whole checks that everything was told.
func (r *rig) whole(t *testing.T, got []message) {
	t.Helper()
	newest, bodies := map[string]int64{}, map[string]string{}
	for _, m := range got {
		newest[m.Data.ID] = max(newest[m.Data.ID], m.Data.Version)
		if was, ok := bodies[m.id]; ok {
			require.Equal(t, was, string(m.body), "one id, one content")
		}
		bodies[m.id] = string(m.body)
	}
	total := 0
	for q := (guard.Query{Limit: 200}); ; {
		page, err := r.customers.List(context.Background(), r.admin, q)
		require.NoError(t, err)
		for _, v := range page.Items {
			total++
			require.Equal(t, v.Value.Version, newest[v.Value.ID.String()], "its newest version was told")
		}
		if q.After = page.Next; page.Next == "" {
			break
		}
	}
	require.Equal(t, len(newest), total)
	require.NotZero(t, total)
	for _, d := range r.deliveries(t, false) {
		require.NotEqual(t, outbox.Waiting, d.State)
	}
}
