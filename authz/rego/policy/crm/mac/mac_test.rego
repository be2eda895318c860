package crm.mac_test

import data.crm.mac

asks(level, compartments, action, record_level, record_compartments) := {
	"subject": {"level": level, "compartments": compartments},
	"action": action,
	"resource": {"level": record_level, "compartments": record_compartments},
}

both if {
	mac.read
	mac.write
}

test_allow_everything_at_level_0[action] if {
	some action in data.settings.actions
	both with input as asks(0, [], action, 0, [])
}

test_allow_read_down if mac.read with input as asks(2, [], "read", 1, [])

test_allow_read_within_compartments if mac.read with input as asks(0, ["vip", "legal"], "read", 0, ["vip"])

test_allow_create_up if both with input as asks(0, [], "create", 3, ["vip"])

test_allow_change_at_own_level if both with input as asks(2, ["vip"], "update", 2, ["vip"])

test_allow_declassify_down if both with input as asks(2, [], "declassify", 1, [])

test_allow_reading_down_writes_nothing[action] if {
	some action in data.settings.mac.reading
	mac.write with input as asks(2, [], action, 0, [])
}

test_deny_read_up[action] if {
	some action in others
	not mac.read with input as asks(1, [], action, 2, [])
}

test_deny_beyond_compartments[action] if {
	some action in others
	not mac.read with input as asks(9, ["legal"], action, 0, ["vip", "legal"])
}

test_deny_no_compartments_at_all if not mac.read with input as asks(9, [], "read", 0, ["vip"])

test_deny_write_down[action] if {
	some action in [
		"create", "import", "update", "delete", "restore", "approve", "certify", "erase", "manage", "purge",
		"claim", "assign", "transfer", "release", "recycle", "handover", "enter", "lock", "merge",
	]
	not mac.write with input as asks(2, [], action, 1, [])
}

test_deny_update_up if not both with input as asks(1, [], "update", 2, [])

test_deny_declassify_up if not both with input as asks(1, [], "declassify", 2, [])

test_deny_action_that_settings_do_not_name if {
	not mac.read with input as asks(1, [], "shred", 2, [])
	not mac.write with input as asks(2, [], "shred", 1, [])
}

test_deny_settings_missing if {
	not mac.read with input as asks(0, [], "create", 3, []) with data.settings.mac as {}
	not mac.write with input as asks(2, [], "read", 1, []) with data.settings.mac as {}
}

test_deny_record_level[name] if {
	some name, level in {"null": null, "yes": true, "word": "0", "list": [0], "negative": -1}
	not mac.read with input as asks(9, [], "read", level, [])
	not both with input as asks(0, [], "update", level, [])
}

test_deny_blind_write_to_a_level_that_is_no_number[name] if {
	some name, level in {"null": null, "yes": true, "negative": -1}
	not mac.read with input as asks(0, [], "create", level, [])
}

test_allow_create_without_sight_of_compartments if {
	both with input as asks(0, [], "create", 0, ["vip"])
}

test_allow_highest_level if {
	both with input as asks(2147483647, [], "update", 2147483647, [])
	not mac.write with input as asks(0, [], "update", 2147483648, [])
}

test_deny_write_to_a_level_that_is_no_number[name] if {
	some name, level in {"null": null, "yes": true, "word": "9", "list": [9]}
	not mac.write with input as asks(0, [], "update", level, [])
	not mac.write with input as asks(0, [], "create", level, [])
}

test_deny_subject_level[name] if {
	some name, level in {"null": null, "yes": true, "word": "9", "list": [9], "negative": -1}
	not mac.read with input as asks(level, [], "read", 0, [])
	not mac.write with input as asks(level, [], "update", 0, [])
}

test_deny_compartments_of_another_form[name] if {
	some name, compartments in {"null": null, "number": 1, "yes": true, "word": "vip", "list of null": [null]}
	not mac.read with input as asks(9, ["vip"], "read", 0, compartments)
}

test_deny_missing if {
	not mac.read with input as {"subject": {"level": 9, "compartments": []}, "action": "read", "resource": {"level": 0}}
	not mac.read with input as {"subject": {"level": 9}, "action": "read", "resource": {"compartments": []}}
	not mac.read with input as {"subject": {}, "action": "read", "resource": {"level": 0, "compartments": []}}
	not mac.write with input as {"subject": {}, "action": "update", "resource": {"level": 0}}
	not mac.write with input as {"subject": {"level": 0}, "action": "update", "resource": {}}
	not mac.read with input as {}
	not mac.write with input as {}
}

# All but those that need no right to read.
others := {action | some action in data.settings.actions} - {"create", "import"}
