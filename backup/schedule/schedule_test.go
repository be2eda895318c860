package schedule_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crmguard/crmguard/backup/policy"
	"github.com/crmguard/crmguard/backup/schedule"
)

// diary notes when a job ran and what was told.
type diary struct {
	runs   []time.Duration // since the beginning
	missed []int
	faults int
	last   time.Time
	fail   func(run int) error
}

func (d *diary) job(every time.Duration) *schedule.Job {
	began := time.Now()
	return &schedule.Job{Name: "a", Schedule: policy.Schedule{Every: every, Jitter: -1},
		Last: func(context.Context) (time.Time, error) { return d.last, nil },
		Run: func(context.Context) error {
			d.runs = append(d.runs, time.Since(began))
			if d.fail != nil {
				if err := d.fail(len(d.runs)); err != nil {
					return err
				}
			}
			d.last = time.Now()
			return nil
		},
		Told: func(missed int, err error) {
			d.missed = append(d.missed, missed)
			if err != nil {
				d.faults++
			}
		}}
}

func (d *diary) loop(t *testing.T, j *schedule.Job, long time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	if err := j.Loop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

// TestLoop: backups are made when they are due, missed ones are told, and failed ones are tried again later and later.
//
//crm:item 37
func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		d.loop(t, d.job(time.Hour), 5*time.Hour-time.Minute)
		if fmt.Sprint(d.runs) != "[0s 1h0m0s 2h0m0s 3h0m0s 4h0m0s]" || d.faults > 0 {
			t.Error(d.runs)
		}
	})
	synctest.Test(t, func(t *testing.T) { // another program made one meanwhile
		d := &diary{last: time.Now().Add(-30 * time.Minute)}
		d.loop(t, d.job(time.Hour), time.Hour)
		if fmt.Sprint(d.runs) != "[30m0s]" {
			t.Error(d.runs)
		}
	})
	synctest.Test(t, func(t *testing.T) { // the program was down
		d := &diary{last: time.Now().Add(-5*time.Hour - time.Minute)}
		d.loop(t, d.job(time.Hour), time.Minute)
		if fmt.Sprint(d.runs, d.missed) != "[0s] [5]" {
			t.Error(d.runs, d.missed)
		}
	})
	synctest.Test(t, func(t *testing.T) { // it fails three times, and is tried later and later
		d := &diary{fail: func(run int) error {
			if run <= 3 {
				return errors.New("down")
			}
			return nil
		}}
		d.loop(t, d.job(time.Hour), 2*time.Hour)
		if fmt.Sprint(d.runs) != "[0s 1m0s 3m0s 7m0s 1h7m0s]" || d.faults != 3 {
			t.Error(d.runs, d.faults)
		}
	})
	synctest.Test(t, func(t *testing.T) { // it goes on failing: never less often than the schedule
		d := &diary{fail: func(int) error { return errors.New("down") }}
		d.loop(t, d.job(5*time.Minute), time.Hour)
		if n := len(d.runs); n < 13 || n > 15 {
			t.Error(d.runs)
		}
	})
	synctest.Test(t, func(t *testing.T) { // a backup that is dated next year
		d := &diary{last: time.Now().AddDate(1, 0, 0)}
		d.loop(t, d.job(time.Hour), time.Minute)
		if len(d.runs) != 1 {
			t.Error(d.runs)
		}
	})
	if err := (&schedule.Job{}).Loop(t.Context()); err == nil {
		t.Error("an empty job runs")
	}
}

func ExampleJob_Loop() {
	ctx, stop := context.WithCancel(context.Background())
	var last time.Time
	job := schedule.Job{
		Schedule: policy.Schedule{Every: 24 * time.Hour},
		Last:     func(context.Context) (time.Time, error) { return last, nil }, // of Repository.Snapshots
		Run: func(context.Context) error { // Repository.Backup
			last = time.Now()
			stop()
			return nil
		},
	}
	fmt.Println(job.Loop(ctx), last.IsZero())
	// Output: context canceled false
}
