# METADATA
# title: Obligations
# description: What the subject must do or hold before the action goes on.
# schemas:
#   - input: schema.input
# custom:
#   control: ISO 27001 A.8.15
package crm.obligations

import data.crm.emergency
import data.crm.export

# METADATA
# scope: document
# title: Needed
# description: The obligations of this action, those of an emergency and those of an export.
needed contains obligation if some obligation in data.settings.obligations_of[input.action]

needed contains obligation if some obligation in emergency.obligations

needed contains obligation if some obligation in export.obligations
