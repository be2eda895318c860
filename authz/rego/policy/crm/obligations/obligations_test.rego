package crm.obligations_test

import data.crm.obligations

now := 1795694400000000000

asks(action) := {
	"subject": {
		"id": "e1", "roles": ["manager"], "team": "/east/", "grants": [], "shares": [], "delegations": [],
		"emergencies": [{"type": "customer", "approvers": ["e8", "e9"], "until": now + 1}],
	},
	"action": action,
	"resource": {"type": "customer", "id": "r1", "owner": "e2", "team": "/east/"},
	"environment": {"time": now, "rows": 1},
}

test_allow_without[action] if {
	some action in ["read", "list", "search", "update", "create", "delete", "restore", "history", "import"]
	obligations.needed == set() with input as asks(action)
}

test_deny_without[name] if {
	some name, needed in {
		"reveal": {"reason"},
		"export": {"reason", "watermark", "rows:2000"},
		"aggregate": {"groups"},
		"declassify": {"reason", "second_person"},
		"erase": {"reason", "second_person"},
	}
	obligations.needed == needed with input as asks(name)
}

test_deny_large_export_without if {
	ask := json.patch(asks("export"), [{"op": "replace", "path": "/environment/rows", "value": 1000000}])
	obligations.needed == {"reason", "watermark", "rows:2000", "step_up", "second_person"} with input as ask
}

test_deny_emergency_without if {
	ask := json.patch(asks("read"), [{"op": "replace", "path": "/resource/team", "value": "/west/"}])
	obligations.needed == {"reason", "review"} with input as ask
}
