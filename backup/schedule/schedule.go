// Package schedule makes backups when policy.Schedule says, and says when some were missed.
package schedule

import (
	"context"
	"errors"
	"time"

	"github.com/crmguard/crmguard/backup/policy"
)

// Job is what is done again and again.
type Job struct {
	Name     string // of the source
	Schedule policy.Schedule
	// Last says when the newest backup was made, whoever made it; the zero time = there is none. It is asked before each run, so that several programs
	// with one repository make one backup between them.
	Last func(ctx context.Context) (time.Time, error)
	// Run makes one.
	Run func(ctx context.Context) error
	// Told is told of each run and, before a late one, how many were missed: while the program was down, or because they failed. Nil = nobody.
	Told func(missed int, err error)
	// Retry is how long after an error it tries again; each further error doubles it, up to Schedule.Every. 0 = a minute.
	Retry time.Duration
}

// Loop runs the job until ctx ends, whose error it returns.
func (j *Job) Loop(ctx context.Context) error {
	if j.Last == nil || j.Run == nil {
		return errors.New("schedule: a job needs Last and Run")
	}
	first := j.Retry
	if first <= 0 {
		first = time.Minute
	}
	most := j.Schedule.Every
	if most <= 0 {
		most = 24 * time.Hour
	}
	retry := first
	for {
		wait, err := j.once(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			wait = min(retry, most)
			retry *= 2
		} else {
			retry = first
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// once makes a backup if one is due, and returns how long the next look may wait.
func (j *Job) once(ctx context.Context) (wait time.Duration, err error) {
	tell := func(missed int, err error) {
		if j.Told != nil && ctx.Err() == nil {
			j.Told(missed, err)
		}
	}
	last, err := j.Last(ctx)
	if err != nil {
		tell(0, err)
		return 0, err
	}
	now := time.Now()
	if last.After(now.Add(time.Hour)) { // a clock was wrong: that one does not hold up the next
		last = time.Time{}
	}
	if wait := j.Schedule.Next(j.Name, last).Sub(now); wait > 0 {
		return wait, nil
	}
	missed := j.Schedule.Missed(last, now)
	err = j.Run(ctx)
	tell(missed, err)
	return 0, err
}
