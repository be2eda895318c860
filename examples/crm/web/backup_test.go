package web

import (
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/examples/crm/app"
)

// TestCancelBackup: who may start a backup may cancel it; nobody else may. What was sent is kept and used by the next one.
func TestCancelBackup(t *testing.T) {
	o := newOffice(t)
	for range 3 { // some segments of rows
		var all []*crm.Customer
		for range guard.MaxBatch {
			b := make([]byte, 6000)
			rand.Read(b)
			c := &crm.Customer{Name: crm.NewText("Somebody"), Note: crm.NewText(base64.StdEncoding.EncodeToString(b)), Kind: crm.PersonCustomer, Stage: crm.CustomerNew}
			c.Owner, c.Team = o.people["sales"].ID, "/east/1/"
			all = append(all, c)
		}
		errs, err := o.app.Customers.CreateAll(t.Context(), app.System("seed"), all)
		require.NoError(t, err)
		require.NoError(t, errs[0])
	}
	admin, auditor, sales := o.as("admin"), o.as("auditor"), o.as("sales")
	segments := func() (out []string) {
		out, err := filepath.Glob(filepath.Join(o.app.Config.Data, "backup", "segments", "*"))
		require.NoError(t, err)
		return out
	}
	ended := func() {
		t.Helper()
		require.NoError(t, o.server.Wait(t.Context()))
	}

	// Nothing runs: nothing happens and nothing is logged.
	status, _ := admin.post("/backups/cancel", nil)
	assert.Equal(t, http.StatusSeeOther, status)
	assert.Zero(t, o.logged("backup.cancelled", o.id("admin"), audit.Allowed))

	// It is held where two segments are there and noted.
	held, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	o.server.jobs.watch = func() {
		if _, err := os.Stat(filepath.Join(o.app.Config.Data, "backup.journal")); err == nil && len(segments()) >= 2 {
			once.Do(func() { close(held) })
			<-goOn
		}
	}
	status, _ = admin.post("/backups", nil)
	require.Equal(t, http.StatusSeeOther, status)
	select {
	case <-held:
	case <-time.After(time.Minute):
		t.Fatal("the backup was over too soon")
	}
	for _, who := range []*browser{sales, auditor} {
		status, _ = who.post("/backups/cancel", nil)
		assert.Equal(t, http.StatusForbidden, status, who.name)
	}
	done := admin.do(http.MethodPost, "/backups/cancel", nil)
	assert.Equal(t, http.StatusSeeOther, done.Code)
	assert.Equal(t, "/backups", done.Header().Get("Location"))
	assert.Contains(t, done.Header().Get("Set-Cookie"), "crm-flash=backup_cancelled")
	close(goOn)
	ended()
	kept := segments()
	assert.NotEmpty(t, kept)
	assert.FileExists(t, filepath.Join(o.app.Config.Data, "backup.journal"))
	all, err := app.Snapshots(t.Context(), o.app.Config)
	require.NoError(t, err)
	assert.Empty(t, all, "no snapshot that is not whole")
	assert.Equal(t, 1, o.logged("backup.cancelled", o.id("admin"), audit.Allowed))
	assert.Zero(t, o.logged("backup.failed", "system", audit.Failed), "a cancelled backup has not failed")
	page := admin.do(http.MethodGet, "/backups", nil).Body.String()
	assert.NotContains(t, page, "The last backup failed")
	assert.NotContains(t, page, `action="/backups/cancel"`)
	assert.Contains(t, page, `action="/backups"`, "it can be started again")

	// The next one takes up what was sent.
	o.server.jobs.watch = nil
	status, _ = admin.post("/backups", nil)
	require.Equal(t, http.StatusSeeOther, status)
	ended()
	all, err = app.Snapshots(t.Context(), o.app.Config)
	require.NoError(t, err)
	require.Len(t, all, 1)
	for _, s := range kept {
		_, err := os.Stat(s)
		assert.NoError(t, err, "a segment that was sent is part of it")
	}
	assert.NoFileExists(t, filepath.Join(o.app.Config.Data, "backup.journal"))
	rep, err := app.VerifyBackups(t.Context(), o.app.Config, "")
	require.NoError(t, err)
	require.NoError(t, rep.Err())
	assert.Equal(t, 1, o.logged("backup.verified", "system", audit.Allowed))

	// The page says both, to who may do it, in both languages.
	o.server.jobs.mu.Lock()
	o.server.jobs.running, o.server.jobs.stopping = true, false
	o.server.jobs.mu.Unlock()
	assert.Contains(t, admin.do(http.MethodGet, "/backups", nil).Body.String(), `action="/backups/cancel"`)
	assert.NotContains(t, auditor.do(http.MethodGet, "/backups", nil).Body.String(), `action="/backups/cancel"`, "who may only look")
	o.server.jobs.mu.Lock()
	o.server.jobs.stopping = true
	o.server.jobs.mu.Unlock()
	page = admin.do(http.MethodGet, "/backups", nil).Body.String()
	assert.Contains(t, page, "Stopping the backup")
	assert.NotContains(t, page, `action="/backups/cancel"`)
	o.server.jobs.mu.Lock()
	o.server.jobs.running = false
	o.server.jobs.mu.Unlock()
}
