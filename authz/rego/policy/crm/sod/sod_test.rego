package crm.sod_test

import data.crm.sod

roles(list) := {"subject": {"id": "e1", "roles": list, "grants": []}}

test_allow_each_role_alone[role] if {
	some role in object.keys(data.settings.inherits)
	sod.static with input as roles([role])
}

test_allow_roles_that_go_together if sod.static with input as roles(["sales", "support", "marketing"])

test_deny_each_exclusive_pair[name] if {
	some pair in data.settings.exclusive_roles
	name := concat(" ", pair)
	not sod.static with input as roles(pair)
	sod.violations == {{role | some role in pair}} with input as roles(pair)
}

test_deny_by_inheritance if not sod.static with input as roles(["manager", "finance"])

test_deny_settings_of_another_form[name] if {
	some name, pairs in {"null": null, "word": "sales", "object": {"sales": "finance"}}
	not sod.static with input as roles(["sales", "finance"]) with data.settings.exclusive_roles as pairs
}

test_deny_larger_groups if {
	not sod.static with input as roles(["support", "sales"])
		with data.settings.exclusive_roles as [["marketing", "support", "sales"]]
}

acts(action, id, actors) := {"subject": {"id": id}, "action": action, "resource": {"type": "quote", "actors": actors}}

test_allow_second_person[action] if {
	some action in ["approve", "certify"]
	sod.dynamic with input as acts(action, "e1", ["e2", "e3"])
}

test_allow_actions_that_take_none[action] if {
	some action in others
	sod.dynamic with input as acts(action, "e1", ["e1"])
}

test_deny_who_had_a_part[action] if {
	some action in ["approve", "certify"]
	not sod.dynamic with input as acts(action, "e1", ["e2", "e1"])
}

test_deny_record_without_history[action] if {
	some action in ["approve", "certify"]
	not sod.dynamic with input as acts(action, "e1", [])
}

test_deny_actors_of_another_form[name] if {
	some name, actors in {"null": null, "number": 1, "yes": true, "word": "e2", "empty word": "", "empty object": {}}
	not sod.dynamic with input as acts("approve", "e1", actors)
}

test_deny_subject_without_id[name] if {
	some name, id in {"empty": "", "null": null, "number": 1}
	not sod.dynamic with input as acts("approve", id, ["e2"])
}

test_deny_unknown_action if not sod.dynamic with input as acts("shred", "e1", ["e2"])

test_deny_settings_of_another_form[name] if {
	some name, actions in {"null": null, "word": "approve", "empty object": {}}
	not sod.dynamic with input as acts("approve", "e1", ["e1"]) with data.settings.second_person_actions as actions
}

test_deny_missing if {
	not sod.dynamic with input as {"subject": {"id": "e1"}, "action": "approve", "resource": {}}
	not sod.dynamic with input as {"subject": {}, "action": "approve", "resource": {"actors": ["e2"]}}
	not sod.dynamic with input as {}
}

# The actions that take nothing of this.
others := {action | some action in data.settings.actions} - {"approve", "certify"}
