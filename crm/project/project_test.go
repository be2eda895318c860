package project_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/crm/guard"
	"github.com/crmguard/crmguard/crm/money"
	"github.com/crmguard/crmguard/crm/project"
)

var (
	start = crmtest.Start()
	lead  = crmtest.EmployeeID(1)
	hand  = crmtest.EmployeeID(2)
)

func sample() *project.Project {
	return &project.Project{
		Meta: crm.Meta[project.Project]{ID: crm.ID[project.Project]{1}}, Number: "PR-1", Name: crm.NewText("roll-out"), State: project.Active,
		Members: []project.Member{{lead, project.Lead}, {hand, project.Worker}, {crmtest.EmployeeID(3), project.Viewer}}, Budget: 100, Currency: "CNY",
	}
}

func taskID(n int) crm.ID[project.Task] { return crm.ID[project.Task]{15: byte(n)} }

func task(n int, after ...int) *project.Task {
	t := &project.Task{
		Meta: crm.Meta[project.Task]{ID: taskID(n), Owner: hand}, Project: sample().ID, Name: crm.NewText("task"), Effort: 60, State: project.TaskOpen,
	}
	for _, a := range after {
		t.After = append(t.After, taskID(a))
	}
	return t
}

func TestStored(t *testing.T) {
	for want, schema := range map[string]func(*guard.TypeOptions) (crm.Schema, error){
		crm.TypeProject: guard.Schema[*project.Project], crm.TypeTask: guard.Schema[*project.Task],
	} {
		if s, err := schema(nil); err != nil || s.Type != want {
			t.Errorf("%s: %q, %v", want, s.Type, err)
		}
	}
}

// TestItem07Projects: tasks wait for others without cycles, are done by members only, count into progress, and a project ends when none is open.
func TestItem07Projects(t *testing.T) {
	type p = project.Project
	crmtest.Edits(t, sample, (*p).Validate,
		crmtest.Breaks(func(*p) {}),
		crmtest.Breaks(func(r *p) { r.Number, r.Name = "", crm.Text{} }, "number required", "name required"),
		crmtest.Breaks(func(r *p) { r.Members[1].Employee = lead }, "members.1 repeated"),
		crmtest.Breaks(func(r *p) { r.Members[1].Role = crmtest.Secret }, "members.1.role unknown_value"),
		crmtest.Breaks(func(r *p) { r.Members = r.Members[1:] }, "members required"),
		crmtest.Breaks(func(r *p) { r.Currency = "" }, "currency required"),
		crmtest.Breaks(func(r *p) { r.State = project.Done }, "closed_at mismatch"),
		crmtest.Breaks(func(r *p) { r.Starts, r.Ends = start, start.Add(-1) }, "ends before_start"),
	)
	type k = project.Task
	crmtest.Edits(t, func() *k { return task(1, 2) }, (*k).Validate,
		crmtest.Breaks(func(*k) {}),
		crmtest.Breaks(func(r *k) { r.After[0] = r.ID }, "after.0 bad_reference"),
		crmtest.Breaks(func(r *k) { r.After = append(r.After, r.After[0]) }, "after.1 repeated"),
		crmtest.Breaks(func(r *k) { r.Effort, r.Spent = -1, -1 }, "effort negative", "spent negative"),
		crmtest.Breaks(func(r *k) { r.State = project.TaskDone }, "over_at mismatch"),
		crmtest.Breaks(func(r *k) { r.Project = crm.ID[p]{} }, "project required"),
	)
	crmtest.Fixed(t, task(1), (*k).CheckUpdate, map[string]func(*k){"project fixed": func(r *k) { r.Project = crm.ID[p]{9} }})

	// Order and cycles.
	list := []*k{task(1, 3), task(2), task(3, 2), task(4, 1, 2)}
	sorted, err := project.Order(list)
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	for _, x := range sorted {
		got = append(got, x.ID[15])
	}
	if !slices.Equal(got, []byte{2, 3, 1, 4}) {
		t.Errorf("%v", got)
	}
	var cycle *project.CycleError
	if _, err := project.Order([]*k{task(1, 3), task(2, 1), task(3, 2), task(4, 3)}); !errors.As(err, &cycle) ||
		!slices.Equal(cycle.Tasks, []crm.ID[k]{taskID(1), taskID(3), taskID(2)}) {
		t.Errorf("a cycle: %v", err)
	}
	_, err = project.Order([]*k{task(1, 9)})
	crmtest.Broken(t, "waits for nothing that is there", err, "after bad_reference")
	_, err = project.Order([]*k{task(1), task(1)})
	crmtest.Broken(t, "twice", err, "id repeated")
	foreign := task(9)
	foreign.Project = crm.ID[p]{9}
	_, err = project.Order([]*k{task(1, 9), foreign})
	crmtest.Broken(t, "waits for another project", err, "after bad_reference")

	// Work.
	x := sample()
	crmtest.Broken(t, "before what it waits for", list[2].Move(project.TaskDoing, x, list, start), "after not_in_order")
	crmtest.Stays(t, "done before it is begun", list[1].Move(project.TaskDone, x, list, start), "open", "done")
	stranger := task(2)
	stranger.Owner = crmtest.EmployeeID(8)
	crmtest.Broken(t, "by a stranger", stranger.Move(project.TaskDoing, x, list, start), "owner bad_reference")
	stranger.Owner = crmtest.EmployeeID(3)
	crmtest.Broken(t, "by a viewer", stranger.Move(project.TaskDoing, x, list, start), "owner bad_reference")
	held := sample()
	held.State = project.OnHold
	crmtest.Broken(t, "in a project on hold", task(2).Move(project.TaskDoing, held, list, start), "project mismatch")
	for _, to := range []project.TaskState{project.TaskDoing, project.TaskDone} {
		prev := *list[1]
		if err := errors.Join(list[1].Move(to, x, list, start), list[1].Validate(), list[1].CheckUpdate(&prev)); err != nil {
			t.Fatal(err)
		}
	}
	if err := list[2].Move(project.TaskDoing, x, list, start); err != nil {
		t.Errorf("after what it waited for: %v", err)
	}

	// Progress.
	list[0].DueAt = start.Add(-1)
	list[3].State = project.TaskDropped
	list[1].Effort = 120
	if p, err := project.Count(list, start); err != nil || p != (project.Progress{Tasks: 3, Done: 1, Late: 1, Points: 5000}) {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := project.Count(nil, start); err != nil || p != (project.Progress{}) {
		t.Errorf("%+v, %v", p, err)
	}
	list[1].Effort = math.MaxInt64
	if _, err := project.Count(list, start); !errors.Is(err, money.ErrOverflow) {
		t.Errorf("a sum that does not fit: %v", err)
	}

	// The end.
	crmtest.Broken(t, "with open tasks", x.Move(project.Done, list, start), "tasks not_empty")
	if err := x.Move(project.Done, []*k{list[1], list[3]}, start); err != nil {
		t.Fatal(err)
	}
	crmtest.Stays(t, "done and cancelled", x.Move(project.Cancelled, nil, start), "done", "cancelled")
	crmtest.Fixed(t, x, (*p).CheckUpdate, map[string]func(*p){"members fixed": func(r *p) { r.Members = nil }, "budget fixed": func(r *p) { r.Budget++ }})
}

// TestOrderProperties: of any graph, either each task comes after what it waits for, or there is a cycle that is one.
func TestOrderProperties(t *testing.T) {
	random := rand.New(rand.NewPCG(13, 14))
	var sorted, cycles int
	for range 3000 {
		n := 1 + random.IntN(8)
		var list []*project.Task
		for i := range n {
			k := task(i + 1)
			for j := range n {
				if i != j && random.IntN(5) == 0 {
					k.After = append(k.After, taskID(j+1))
				}
			}
			list = append(list, k)
		}
		got, err := project.Order(list)
		var cycle *project.CycleError
		switch {
		case errors.As(err, &cycle):
			cycles++
			for i, id := range cycle.Tasks {
				k := list[id[15]-1]
				if !slices.Contains(k.After, cycle.Tasks[(i+1)%len(cycle.Tasks)]) {
					t.Fatalf("no cycle: %v", cycle.Tasks)
				}
			}
		case err != nil:
			t.Fatal(err)
		default:
			sorted++
			seen := map[crm.ID[project.Task]]bool{}
			for _, k := range got {
				for _, a := range k.After {
					if !seen[a] {
						t.Fatal("before what it waits for")
					}
				}
				seen[k.ID] = true
			}
			if len(seen) != n {
				t.Fatal("lost a task")
			}
		}
	}
	if sorted < 100 || cycles < 100 {
		t.Errorf("%d sorted, %d cycles", sorted, cycles)
	}
}

func ExampleOrder() {
	_, err := project.Order([]*project.Task{task(1, 2), task(2, 1)})
	fmt.Println(err)
	list, err := project.Order([]*project.Task{task(1, 2), task(2)})
	fmt.Println(list[0].ID == taskID(2), err)
	fmt.Println(time.Duration(list[0].Effort) * time.Minute)
	// Output:
	// project: 2 tasks wait for one another
	// true <nil>
	// 1h0m0s
}
