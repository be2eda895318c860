package crm.share_test

import data.crm.share

now := 1795694400000000000

item := {"record": "r1", "by": "e2", "actions": ["read", "update"], "until": now + 1}

base := {
	"subject": {"id": "e1", "shares": [item]},
	"action": "read",
	"resource": {"type": "customer", "id": "r1", "owner": "e2"},
	"environment": {"time": now},
}

changed(path, value) := json.patch(base, [{"op": "replace", "path": path, "value": value}])

test_allow_shared[action] if {
	some action in ["read", "update"]
	share.given with input as changed("/action", action)
}

test_allow_second_share if {
	share.given with input as changed("/subject/shares", [object.union(item, {"record": "r9"}), item])
}

test_allow_first_and_last_moment if {
	first := json.patch(base, [
		{"op": "replace", "path": "/environment/time", "value": 1},
		{"op": "replace", "path": "/subject/shares/0/until", "value": 2},
	])
	share.given with input as first
	share.given with input as changed("/subject/shares/0/until", 9223372036854775807)
	not share.given with input as changed("/subject/shares/0/until", 9223372036854775808)
}

test_deny_changed[name] if {
	some name, ask in {
		"another record": changed("/resource/id", "r2"),
		"another owner by now": changed("/resource/owner", "e3"),
		"no owner": changed("/resource/owner", ""),
		"action not shared": changed("/action", "list"),
		"action not shareable": changed("/action", "delete"),
		"unknown action": changed("/action", "shred"),
		"type not shareable": changed("/resource/type", "account"),
		"a delegation": changed("/resource/type", "delegation"),
		"no shares": changed("/subject/shares", []),
		"null shares": changed("/subject/shares", null),
		"ends now": changed("/environment/time", now + 1),
		"ended": changed("/environment/time", now + 2),
		"null time": changed("/environment/time", null),
		"word time": changed("/environment/time", "now"),
		"time 0": changed("/environment/time", 0),
		"record missing": changed("/resource", {"type": "customer"}),
		"time missing": changed("/environment", {}),
		"nothing": {},
	}
	not share.given with input as ask
}

test_deny_share[name] if {
	some name, patch in {
		"by another": {"by": "e3"},
		"by nobody": {"by": ""},
		"by null": {"by": null},
		"record null": {"record": null},
		"no actions": {"actions": []},
		"actions null": {"actions": null},
		"actions a word": {"actions": "read"},
		"until 0": {"until": 0},
		"until null": {"until": null},
		"until a word": {"until": "tomorrow"},
		"until yes": {"until": true},
	}
	not share.given with input as changed("/subject/shares/0", object.union(item, patch))
}

test_deny_parts_of_two_shares if {
	shares := [object.union(item, {"record": "r2"}), object.union(item, {"by": "e3"})]
	not share.given with input as changed("/subject/shares", shares)
}

test_deny_null_on_both_sides if {
	ask := json.patch(base, [
		{"op": "replace", "path": "/resource/id", "value": null},
		{"op": "replace", "path": "/subject/shares/0/record", "value": null},
	])
	not share.given with input as ask
	nobodys := json.patch(base, [
		{"op": "replace", "path": "/resource/owner", "value": ""},
		{"op": "replace", "path": "/subject/shares/0/by", "value": ""},
	])
	not share.given with input as nobodys
	unnamed := json.patch(base, [
		{"op": "replace", "path": "/resource/id", "value": ""},
		{"op": "replace", "path": "/subject/shares/0/record", "value": ""},
	])
	not share.given with input as unnamed
}

test_deny_passing_on[action] if {
	some action in [
		"share", "approve", "certify", "declassify", "manage", "purge",
		"claim", "assign", "transfer", "release", "recycle", "handover", "enter", "lock", "merge",
	]
	ask := json.patch(base, [
		{"op": "replace", "path": "/action", "value": action},
		{"op": "replace", "path": "/subject/shares/0/actions", "value": [action]},
	])
	not share.given with input as ask with data.settings.shareable_actions as [action]
}

test_deny_settings_missing if {
	not share.given with input as base with data.settings.shareable_actions as null
	not share.given with input as base with data.settings.shareable_types as null
}
