package backup_test

import (
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backuptest"
)

// Sampled runs read a share, those objects first that no run read: so a few runs read everything, and find any damage.
func TestSampled(t *testing.T) {
	bucket := &backuptest.Bucket{}
	now := epoch
	r := open(t, bucket, func(o *backup.Options) { o.Now = func() time.Time { return now } })
	m := backuptest.Rows(60)
	for i := range m.Tables[0].Rows {
		m.Tables[0].Rows[i][4] = noise(i, 450_000)
	}
	snap := mustBackup(t, r, m, nil)
	objects := backup.ObjectsOf(t.Context(), r, snap.ID)
	seen := map[string]time.Time{"segments/gone": now}
	o := &backup.VerifyOptions{Level: backup.Sampled, Share: 0.3, Seen: seen}
	rep := verify(t, r, o)
	if rep.Err() != nil || rep.Bytes == 0 || rep.Bytes > snap.Stored*2/3 || len(seen) == 0 || len(seen) == len(objects) {
		t.Fatalf("read %d of %d bytes, %d of %d objects, %v", rep.Bytes, snap.Stored, len(seen), len(objects), rep.Err())
	}
	if _, ok := seen["segments/gone"]; ok {
		t.Error("what is gone is still remembered")
	}
	for range 5 {
		now = now.Add(time.Hour)
		verify(t, r, o)
	}
	if len(seen) != len(objects) {
		t.Fatalf("after six runs %d of %d objects were read", len(seen), len(objects))
	}
	last := objects[len(objects)-1]
	b := read(t, bucket, last)
	b[len(b)/2] ^= 1
	bucket.Set(last, b)
	found := 0
	for range 6 {
		now = now.Add(time.Hour)
		if rep := verify(t, r, o); rep.Err() != nil {
			found++
		}
	}
	if found == 0 {
		t.Error("no sampled run found the damage")
	}
	if rep := verify(t, r, &backup.VerifyOptions{Level: backup.Sampled}); rep.Bytes == 0 {
		t.Error("the default share reads nothing")
	}
}
