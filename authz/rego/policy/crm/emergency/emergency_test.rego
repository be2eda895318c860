package crm.emergency_test

import data.crm.emergency

now := 1795694400000000000

item := {"type": "customer", "approvers": ["e8", "e9"], "until": now + 1}

base := {
	"subject": {
		"id": "e1", "roles": ["sales"], "team": "/east/", "grants": [],
		"shares": [], "delegations": [], "emergencies": [item],
	},
	"action": "read",
	"resource": {"type": "customer", "id": "r1", "owner": "e2", "team": "/west/"},
	"environment": {"time": now},
}

changed(path, value) := json.patch(base, [{"op": "replace", "path": path, "value": value}])

test_allow_open[action] if {
	some action in data.settings.emergency.actions
	emergency.open with input as changed("/action", action)
}

test_allow_more_approvers_than_needed if {
	emergency.open with input as changed("/subject/emergencies/0/approvers", ["e7", "e8", "e9"])
}

test_allow_first_and_last_moment if {
	first := json.patch(base, [
		{"op": "replace", "path": "/environment/time", "value": 1},
		{"op": "replace", "path": "/subject/emergencies/0/until", "value": 2},
	])
	emergency.open with input as first
	emergency.open with input as changed("/subject/emergencies/0/until", 9223372036854775807)
	not emergency.open with input as changed("/subject/emergencies/0/until", 9223372036854775808)
}

test_allow_one_approver_where_one_is_enough if {
	ask := changed("/subject/emergencies/0/approvers", ["e8"])
	emergency.open with input as ask with data.settings.emergency.approvers as 1
}

test_allow_what_settings_open[action] if {
	some action in ["list", "read", "search", "reveal", "history"]
	emergency.open with input as changed("/action", action) with data.settings.emergency.actions as [action]
}

test_deny_reading_that_settings_do_not_open[action] if {
	some action in ["list", "search", "reveal", "history"]
	not emergency.open with input as changed("/action", action) with data.settings.emergency.actions as ["read"]
}

test_deny_changed[name] if {
	some name, ask in {
		"another type": changed("/resource/type", "ticket"),
		"changing": changed("/action", "update"),
		"export": changed("/action", "export"),
		"approval": changed("/action", "approve"),
		"unknown action": changed("/action", "shred"),
		"who approved it too": changed("/subject/id", "e8"),
		"no emergencies": changed("/subject/emergencies", []),
		"null emergencies": changed("/subject/emergencies", null),
		"ends now": changed("/environment/time", now + 1),
		"ended": changed("/environment/time", now + 2),
		"null time": changed("/environment/time", null),
		"word time": changed("/environment/time", "now"),
		"time 0": changed("/environment/time", 0),
		"time missing": changed("/environment", {}),
		"type missing": changed("/resource", {"id": "r1"}),
		"nothing": {},
	}
	not emergency.open with input as ask
}

test_deny_emergency[name] if {
	some name, patch in {
		"no approvers": {"approvers": []},
		"too few approvers": {"approvers": ["e8"]},
		"own approval": {"approvers": ["e1", "e8", "e9"]},
		"approval by nobody": {"approvers": ["", "e9"]},
		"approvers null": {"approvers": null},
		"approvers a number": {"approvers": 2},
		"until 0": {"until": 0},
		"until null": {"until": null},
		"until a word": {"until": "tomorrow"},
		"until yes": {"until": true},
	}
	not emergency.open with input as changed("/subject/emergencies/0", object.union(item, patch))
}

test_deny_type_that_may_not_be_opened[type] if {
	some type in ["employee", "account", "keys", "emergency"]
	not emergency.open with input as json.patch(base, [
		{"op": "replace", "path": "/resource/type", "value": type},
		{"op": "replace", "path": "/subject/emergencies/0/type", "value": type},
	])
}

test_deny_changing_whatever_settings_say[action] if {
	some action in ["create", "update", "delete", "import", "export", "share", "approve", "declassify", "manage"]
	not emergency.open with input as changed("/action", action) with data.settings.emergency.actions as [action]
}

test_deny_without_approval_whatever_settings_say if {
	ask := changed("/subject/emergencies/0/approvers", [])
	not emergency.open with input as ask with data.settings.emergency.approvers as 0
	not emergency.open with input as ask with data.settings.emergency.approvers as null
}

test_deny_settings_missing if {
	not emergency.open with input as base with data.settings.emergency as {}
	number_missing := object.remove(data.settings.emergency, ["approvers"])
	not emergency.open with input as base with data.settings.emergency as number_missing
}

test_allow_emergency_for_reason_and_review if {
	emergency.obligations == {"reason", "review"} with input as base
}

test_allow_other_access_without_obligations[name] if {
	some name, ask in {
		"all": changed("/subject/roles", ["support"]),
		"team": json.patch(base, [
			{"op": "replace", "path": "/subject/roles", "value": ["manager"]},
			{"op": "replace", "path": "/resource/team", "value": "/east/1/"},
		]),
		"own": changed("/resource/owner", "e1"),
		"share": changed("/subject/shares", [{"record": "r1", "by": "e2", "actions": ["read"], "until": now + 1}]),
		"delegation": changed("/subject/delegations", [{"from": "e2", "actions": ["read"], "until": now + 1}]),
	}
	emergency.open with input as ask
	emergency.obligations == set() with input as ask
}

# Whatever else does not give access leaves the obligations.
test_deny_emergency_without_obligations[name] if {
	some name, ask in {
		"ended share": changed("/subject/shares", [{"record": "r1", "by": "e2", "actions": ["read"], "until": now}]),
		"ended delegation": changed("/subject/delegations", [{"from": "e2", "actions": ["read"], "until": now}]),
		"another team": changed("/subject/roles", ["manager"]),
		"null owner and id": json.patch(base, [
			{"op": "replace", "path": "/subject/id", "value": null},
			{"op": "replace", "path": "/resource/owner", "value": null},
		]),
	}
	emergency.obligations == {"reason", "review"} with input as ask
}
