package project

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/money"
)

// State says where a project stands.
type State string

// The states of a project.
const (
	Planned   State = "planned"
	Active    State = "active"
	OnHold    State = "on_hold"
	Done      State = "done"      // final
	Cancelled State = "cancelled" // final
)

// Lifecycle returns the transition table of projects.
func Lifecycle() crm.Lifecycle[State] {
	return crm.NewLifecycle(crm.TypeProject, []State{Planned, Active, OnHold, Done, Cancelled}, map[State][]State{
		Planned: {Active, Cancelled}, Active: {OnHold, Done, Cancelled}, OnHold: {Active, Cancelled},
	})
}

// Role says what a member may do.
type Role string

// The roles of a member.
const (
	Lead   Role = "lead"
	Worker Role = "worker"
	Viewer Role = "viewer" // has no tasks
)

// Member is one who takes part in a project.
type Member struct {
	Employee crm.ID[crm.Employee] `json:"employee"`
	Role     Role                 `json:"role"`
}

// Project is work for a customer or for ourselves.
type Project struct {
	crm.Meta[Project]
	Number   string               `protect:"internal,indexed" json:"number"`
	Name     crm.Text             `protect:"personal" json:"name"`
	Customer crm.ID[crm.Customer] `protect:"internal,indexed" json:"customer"` // none is allowed
	Contract crm.ID[crm.Contract] `protect:"internal,indexed" json:"contract"` // none is allowed
	Members  []Member             `protect:"internal" json:"members"`
	Budget   int64                `protect:"internal" json:"budget"`   // minor units
	Currency string               `protect:"internal" json:"currency"` // ISO 4217
	Starts   time.Time            `protect:"internal,indexed" json:"starts"`
	Ends     time.Time            `protect:"internal,indexed" json:"ends"` // planned
	State    State                `protect:"internal,indexed" json:"state"`
	ClosedAt time.Time            `protect:"internal" json:"closed_at"`
	Note     crm.Text             `protect:"personal" json:"note"`
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (p *Project) Validate() error {
	v := crm.Checks{Type: crm.TypeProject}
	v.Team(p.Team)
	v.Str("number", p.Number, true, 60)
	v.Text("name", p.Name, true, crm.MaxName)
	leads := 0
	for i, m := range p.Members {
		at := "members." + strconv.Itoa(i)
		v.Required(at, m.Employee.IsZero())
		v.OneOf(at+".role", string(m.Role), string(Lead), string(Worker), string(Viewer))
		if slices.ContainsFunc(p.Members[:i], func(o Member) bool { return o.Employee == m.Employee }) {
			v.Add(at, "repeated")
		}
		if m.Role == Lead {
			leads++
		}
	}
	if len(p.Members) > 500 {
		v.Add("members", "too_long")
	}
	v.Required("members", leads == 0 && p.State != Planned && p.State != Cancelled)
	v.NotNegative("budget", p.Budget)
	v.Currency("currency", p.Currency, p.Budget != 0)
	v.Time("starts", p.Starts)
	v.Time("ends", p.Ends)
	v.Order("ends", p.Starts, p.Ends)
	Lifecycle().State(&v, "state", p.State)
	if (p.State == Done || p.State == Cancelled) == p.ClosedAt.IsZero() {
		v.Add("closed_at", "mismatch")
	}
	v.Text("note", p.Note, false, crm.MaxText)
	return v.Err()
}

// CheckUpdate tells whether the stored record prev may become p: a *crm.TransitionError for a step that the table does not have, a
// *crm.InvalidError with the rule fixed for a change of what is closed.
func (p *Project) CheckUpdate(prev *Project) error {
	if err := Lifecycle().CheckUpdate(prev.State, p.State); err != nil {
		return err
	}
	v := crm.Checks{Type: crm.TypeProject}
	if prev.State == Done || prev.State == Cancelled {
		v.Unchanged("members", slices.Equal(p.Members, prev.Members))
		v.Unchanged("budget", p.Budget == prev.Budget && p.Currency == prev.Currency)
		v.SameTime("closed_at", p.ClosedAt, prev.ClosedAt)
	}
	return v.Err()
}

// Member tells whether an employee takes part and in which role.
func (p *Project) Member(e crm.ID[crm.Employee]) (Role, bool) {
	i := slices.IndexFunc(p.Members, func(m Member) bool { return m.Employee == e })
	if i < 0 {
		return "", false
	}
	return p.Members[i].Role, true
}

// Move takes the project to another state at a time. It is done when no task is open: else a *crm.InvalidError with the rule not_empty. A step that
// the table does not have is a *crm.TransitionError.
func (p *Project) Move(to State, tasks []*Task, at time.Time) error {
	if err := Lifecycle().Check(p.State, to); err != nil {
		return err
	}
	v := crm.Checks{Type: crm.TypeProject}
	if to == Done && slices.ContainsFunc(tasks, func(t *Task) bool { return t.Project == p.ID && !t.Deleted && !t.over() }) {
		v.Add("tasks", "not_empty")
		return v.Err()
	}
	next := *p
	next.State, next.UpdatedAt = to, at
	if to == Done || to == Cancelled {
		next.ClosedAt = at
	}
	if err := next.Validate(); err != nil {
		return err
	}
	*p = next
	return nil
}

// TaskState says where a task stands.
type TaskState string

// The states of a task.
const (
	TaskOpen    TaskState = "open"
	TaskDoing   TaskState = "doing"
	TaskDone    TaskState = "done"    // may be opened again
	TaskDropped TaskState = "dropped" // will not be done; may be opened again
)

// TaskLifecycle returns the transition table of tasks.
func TaskLifecycle() crm.Lifecycle[TaskState] {
	return crm.NewLifecycle(crm.TypeTask, []TaskState{TaskOpen, TaskDoing, TaskDone, TaskDropped}, map[TaskState][]TaskState{
		TaskOpen: {TaskDoing, TaskDropped}, TaskDoing: {TaskDone, TaskOpen, TaskDropped}, TaskDone: {TaskOpen}, TaskDropped: {TaskOpen},
	})
}

// Task is one piece of work of a project. Its owner does it.
type Task struct {
	crm.Meta[Task]
	Project crm.ID[Project] `protect:"internal,indexed" json:"project"`
	Name    crm.Text        `protect:"personal" json:"name"`
	After   []crm.ID[Task]  `protect:"internal" json:"after"`  // tasks that are over before it begins
	Effort  int64           `protect:"internal" json:"effort"` // planned, minutes
	Spent   int64           `protect:"internal" json:"spent"`  // minutes
	DueAt   time.Time       `protect:"internal,indexed" json:"due_at"`
	State   TaskState       `protect:"internal,indexed" json:"state"`
	OverAt  time.Time       `protect:"internal" json:"over_at"` // done or dropped
	Orders  int64           `protect:"internal" json:"orders"`  // how often After was set; it tells who sets it on what they read
}

func (t *Task) over() bool { return t.State == TaskDone || t.State == TaskDropped }

// Validate returns a *crm.InvalidError that lists every broken rule, or nil.
func (t *Task) Validate() error {
	v := crm.Checks{Type: crm.TypeTask}
	v.Team(t.Team)
	v.Required("project", t.Project.IsZero())
	v.Text("name", t.Name, true, crm.MaxName)
	for i, id := range t.After {
		switch {
		case id.IsZero() || id == t.ID:
			v.Add("after."+strconv.Itoa(i), "bad_reference")
		case slices.Contains(t.After[:i], id):
			v.Add("after."+strconv.Itoa(i), "repeated")
		}
	}
	if len(t.After) > 100 {
		v.Add("after", "too_long")
	}
	v.NotNegative("orders", t.Orders)
	v.NotNegative("effort", t.Effort)
	v.NotNegative("spent", t.Spent)
	v.Time("due_at", t.DueAt)
	TaskLifecycle().State(&v, "state", t.State)
	if t.over() == t.OverAt.IsZero() {
		v.Add("over_at", "mismatch")
	}
	return v.Err()
}

// Reserved names the fields that nobody sets who makes or updates a task: what it waits for is set by Wait, which looks at the other tasks.
func (t *Task) Reserved(bool) []string { return []string{"after", "orders"} }

// Wait makes a task wait for others of its project, and for no more. tasks are those of the project, this one or not. Errors are those of [Order].
func (t *Task) Wait(after []crm.ID[Task], tasks []*Task, at time.Time) error {
	next := *t
	next.After, next.Orders, next.UpdatedAt = slices.Clone(after), t.Orders+1, at
	if err := next.Validate(); err != nil {
		return err
	}
	all := []*Task{&next}
	for _, o := range tasks {
		if o.ID != t.ID && o.Project == t.Project {
			all = append(all, o)
		}
	}
	if _, err := Order(all); err != nil {
		return err
	}
	*t = next
	return nil
}

// CheckUpdate tells whether the stored record prev may become t: a *crm.TransitionError for a step that the table does not have, a
// *crm.InvalidError with the rule fixed for another project.
func (t *Task) CheckUpdate(prev *Task) error {
	v := crm.Checks{Type: crm.TypeTask}
	v.Unchanged("project", t.Project == prev.Project)
	if err := v.Err(); err != nil {
		return err
	}
	return TaskLifecycle().CheckUpdate(prev.State, t.State)
}

// Move takes a task of a project to another state at a time. tasks are those of the project. Work is done in an active project, by a member who is
// no viewer, after what the task waits for: else a *crm.InvalidError with the rules mismatch for the project, bad_reference for the owner, not_in_order
// for what is not over. A step that the table does not have is a *crm.TransitionError.
func (t *Task) Move(to TaskState, p *Project, tasks []*Task, at time.Time) error {
	if err := TaskLifecycle().Check(t.State, to); err != nil {
		return err
	}
	v := crm.Checks{Type: crm.TypeTask}
	if t.Project != p.ID || p.State != Active && to != TaskDropped {
		v.Add("project", "mismatch")
	}
	if to == TaskDoing || to == TaskDone {
		if role, ok := p.Member(t.Owner); !ok || role == Viewer {
			v.Add("owner", "bad_reference")
		}
		if len(t.waiting(tasks)) > 0 {
			v.Add("after", "not_in_order")
		}
	}
	if err := v.Err(); err != nil {
		return err
	}
	t.State, t.UpdatedAt, t.OverAt = to, at, time.Time{}
	if t.over() {
		t.OverAt = at
	}
	return nil
}

// waiting returns what a task still waits for.
func (t *Task) waiting(tasks []*Task) []crm.ID[Task] {
	var list []crm.ID[Task]
	for _, o := range tasks {
		if slices.Contains(t.After, o.ID) && !o.over() && !o.Deleted {
			list = append(list, o.ID)
		}
	}
	return list
}

// CycleError are tasks that wait for one another.
type CycleError struct {
	Tasks []crm.ID[Task] // each waits for the next, the last for the first
}

// Error counts them.
func (e *CycleError) Error() string {
	return fmt.Sprintf("project: %d tasks wait for one another", len(e.Tasks))
}

// Order returns the tasks of one project so that each comes after those it waits for; where that leaves a choice, by DueAt, those without one last, then by
// id. Errors are a *CycleError, and a *crm.InvalidError with the rule bad_reference for a task that waits for one that is not among them, or
// repeated.
func Order(tasks []*Task) ([]*Task, error) {
	v := crm.Checks{Type: crm.TypeTask}
	byID := map[crm.ID[Task]]*Task{}
	for _, t := range tasks {
		if byID[t.ID] != nil {
			v.Add("id", "repeated")
		}
		byID[t.ID] = t
	}
	for _, t := range tasks {
		for _, id := range t.After {
			if o := byID[id]; o == nil || o.Project != t.Project {
				v.Add("after", "bad_reference")
			}
		}
	}
	if err := v.Err(); err != nil {
		return nil, err
	}
	rest := slices.SortedFunc(slices.Values(tasks), func(a, b *Task) int {
		if a.DueAt.IsZero() != b.DueAt.IsZero() {
			if a.DueAt.IsZero() {
				return 1
			}
			return -1
		}
		return cmp.Or(a.DueAt.Compare(b.DueAt), cmp.Compare(a.ID.String(), b.ID.String()))
	})
	var list []*Task
	placed := map[crm.ID[Task]]bool{}
	for len(rest) > 0 {
		i := slices.IndexFunc(rest, func(t *Task) bool {
			return !slices.ContainsFunc(t.After, func(id crm.ID[Task]) bool { return !placed[id] })
		})
		if i < 0 {
			return nil, &CycleError{cycle(rest[0], byID, placed)}
		}
		placed[rest[i].ID] = true
		list = append(list, rest[i])
		rest = slices.Delete(rest, i, i+1)
	}
	return list, nil
}

// cycle follows what tasks wait for until one comes again. Every task that is not placed waits for another such.
func cycle(t *Task, byID map[crm.ID[Task]]*Task, placed map[crm.ID[Task]]bool) []crm.ID[Task] {
	var path []crm.ID[Task]
	for {
		if i := slices.Index(path, t.ID); i >= 0 {
			return path[i:]
		}
		path = append(path, t.ID)
		i := slices.IndexFunc(t.After, func(id crm.ID[Task]) bool { return !placed[id] })
		t = byID[t.After[i]]
	}
}

// Progress is how far a project is.
type Progress struct {
	Tasks  int // without those that were dropped
	Done   int
	Late   int   // open after their DueAt
	Points int64 // done effort in basis points of all effort; by count when no task has an effort
}

// Count derives how far tasks are at a time. Sums that do not fit are money.ErrOverflow.
func Count(tasks []*Task, at time.Time) (Progress, error) {
	var p Progress
	var all, done int64
	for _, t := range tasks {
		if t.Deleted || t.State == TaskDropped {
			continue
		}
		p.Tasks++
		var err error
		if all, err = money.Sum(all, t.Effort); err != nil {
			return Progress{}, err
		}
		switch {
		case t.State == TaskDone:
			p.Done++
			done += t.Effort // at most all
		case !t.DueAt.IsZero() && at.After(t.DueAt):
			p.Late++
		}
	}
	if all == 0 {
		all, done = int64(p.Tasks), int64(p.Done)
	}
	if all > 0 {
		parts, err := money.Split(money.Basis, done, all-done)
		if err != nil {
			return Progress{}, err
		}
		p.Points = parts[0]
	}
	return p, nil
}
