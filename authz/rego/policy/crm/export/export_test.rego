package crm.export_test

import data.crm.export

settings := {"rows": {"admin": 1000, "manager": 100}, "step_up_rows": 10, "approval_rows": 50}

asks(roles, rows) := {
	"subject": {"id": "e1", "roles": roles, "grants": []},
	"action": "export",
	"resource": {"type": "customer"},
	"environment": {"rows": rows},
}

test_allow_few_rows[name] if {
	some name, rows in {"0": 0, "10": 10}
	export.obligations == {"rows:100"} with input as asks(["manager"], rows) with data.settings.export as settings
}

test_allow_largest_of_the_roles if {
	export.obligations == {"rows:1000"} with input as asks(["manager", "admin", "sales"], 1)
		with data.settings.export as settings
}

test_allow_other_actions_without if export.obligations == set() with input as {
	"subject": {"id": "e1", "roles": ["admin"], "grants": []},
	"action": "read",
	"resource": {"type": "customer"},
	"environment": {"rows": 100000},
}

test_deny_many_rows_without_step_up[name] if {
	some name, rows in {"11": 11, "50": 50}
	export.obligations == {"rows:100", "step_up"} with input as asks(["manager"], rows)
		with data.settings.export as settings
}

test_deny_more_rows_without_second_person[name] if {
	some name, rows in {"51": 51, "many": 1000000, "null": null, "word": "1", "negative": -1, "yes": true}
	export.obligations == {"rows:100", "step_up", "second_person"} with input as asks(["manager"], rows)
		with data.settings.export as settings
}

test_deny_any_row_to_role_without_a_number[name] if {
	some name, roles in {"none": [], "sales": ["sales"], "unknown": ["root"]}
	"rows:0" in export.obligations with input as asks(roles, 1) with data.settings.export as settings
}

test_deny_rows_missing if {
	ask := json.remove(asks(["manager"], 1), ["/environment/rows"])
	export.obligations == {"rows:100", "step_up", "second_person"} with input as ask
		with data.settings.export as settings
}

test_deny_settings_missing if {
	export.obligations == {"rows:0", "step_up", "second_person"} with input as asks(["admin"], 1)
		with data.settings.export as {}
}
