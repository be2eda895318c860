package backup_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/policy"
)

// stopping is a source of one table of change numbers that ends in stop after so many rows.
type stopping struct {
	after  int // below 0 = never
	stop   func() error
	rested bool // after Rest instead
	seq    int64
}

const stoppingRows = 700

func (s stopping) Dump(_ context.Context, w *backup.Writer) error {
	if err := w.Schema(backup.Schema{Engine: "stopping"}); err != nil {
		return err
	}
	if err := w.Table(backup.Table{Name: "t", Columns: []string{"id", "v"}, Key: []string{"id"}, Seq: s.seq}); err != nil {
		return err
	}
	_, ok := w.Since()
	for i := range stoppingRows {
		if i == s.after && !s.rested {
			if err := s.stop(); err != nil {
				return err
			}
		}
		if err := w.Row(int64(i), noise(i+int(s.seq), 15_000)); err != nil {
			return err
		}
	}
	if !ok {
		return nil
	}
	if _, err := w.Rest(stoppingRows); err != nil || !s.rested {
		return err
	}
	return s.stop()
}

// TestBackupsThatStop: whatever ends a backup, nothing of it goes on, and the next one is whole.
func TestBackupsThatStop(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	data := &backuptest.Bucket{}
	r := open(t, data, nil)
	mustBackup(t, r, stopping{after: -1, seq: 1}, nil)
	errStop := errors.New("stop")
	for _, kind := range []struct {
		name  string
		chain *policy.Chain
	}{{"full", nil}, {"all rows compared", &policy.Chain{Scan: true}}, {"by change numbers", &policy.Chain{}}} {
		for _, s := range []stopping{{after: 0}, {after: 1}, {after: 300}, {after: stoppingRows - 1}, {rested: true}} {
			if s.rested && (kind.chain == nil || kind.chain.Scan) || testing.Short() && !s.rested && s.after != 300 {
				continue
			}
			s.seq = 2
			for _, how := range []string{"error", "cancel", "panic", "bucket"} {
				t.Run(fmt.Sprintf("%s, %s, %d %v", kind.name, how, s.after, s.rested), func(t *testing.T) {
					before := runtime.NumGoroutine()
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					var full atomic.Bool
					data.BeforePut = func(string, []byte) error {
						if full.Load() {
							return backup.ErrFull
						}
						return nil
					}
					defer func() { data.BeforePut = nil }()
					want := errStop
					s.stop = func() error {
						switch how {
						case "cancel":
							cancel()
							return nil
						case "panic":
							panic(errStop)
						case "bucket":
							full.Store(true)
							return nil
						}
						return errStop
					}
					switch how {
					case "cancel":
						want = context.Canceled
					case "bucket":
						want = backup.ErrFull
					}
					err := func() (err error) {
						defer func() {
							if v := recover(); v != nil {
								err = v.(error)
							}
						}()
						_, err = r.Backup(ctx, s, &backup.BackupOptions{Chain: kind.chain})
						return err
					}()
					if !errors.Is(err, want) {
						t.Fatalf("got %v, want %v", err, want)
					}
					for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
						if time.Now().After(end) {
							b := make([]byte, 1<<20)
							t.Fatalf("goroutines are left:\n%s", b[:runtime.Stack(b, true)])
						}
					}
					if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
						t.Errorf("files are left: %v, %v", left, err)
					}
				})
			}
		}
		s := mustBackup(t, r, stopping{after: -1, seq: 2}, &backup.BackupOptions{Chain: kind.chain})
		if (s.Parent > 0) != (kind.chain != nil) || s.Rows != stoppingRows {
			t.Errorf("%s: parent %d, %d rows", kind.name, s.Parent, s.Rows)
		}
	}
	if err := verify(t, r, full(t)).Err(); err != nil {
		t.Fatal(err)
	}
}

// TestRowsAfterRest: the index is closed by then, and a row that came late would be missing in it.
func TestRowsAfterRest(t *testing.T) {
	r := open(t, &backuptest.Bucket{}, nil)
	mustBackup(t, r, stopping{after: -1, seq: 1}, nil)
	late := sourceFunc(func(w *backup.Writer) error {
		if err := (stopping{after: -1, seq: 2}).Dump(t.Context(), w); err != nil {
			return err
		}
		_ = w.Row(int64(stoppingRows), []byte("late"))
		return nil
	})
	if _, err := r.Backup(t.Context(), late, &backup.BackupOptions{Chain: &policy.Chain{}}); err == nil {
		t.Fatal("it was taken")
	}
}
