"JupyterLab's settings for this project, read by `make lab`: jupyter-lab --config=scripts/lab_config.py"
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))                                 # for lab_server


def page(_, settings):
    "The page's settings without the question about Jupyter's news."
    return settings | {'disabledExtensions': [*settings['disabledExtensions'], '@jupyterlab/apputils-extension:announcements']}


c = get_config()                                                                      # noqa: F821
c.ServerApp.root_dir = str(Path(__file__).resolve().parent.parent)
c.ServerApp.extra_services = ['lab_server']
c.ServerApp.contents_manager_class = 'lab_server.Notebooks'
c.LabApp.default_url = '/project'
c.MappingKernelManager.transport_encryption = 'auto'                                  # a kernel's messages pass encrypted
c.ServerApp.tornado_settings = {'page_config_hook': page}
