"What scripts/lab_config.py adds to JupyterLab's server."
from ipykernel.ipkernel import IPythonKernel
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from tornado.web import authenticated


class Project(JupyterHandler):
    "The page /project: the index is open, and the list beside it shows the project's files, not those of nbs/."

    @authenticated
    def get(self):
        self.redirect(f'{self.base_url}lab/tree/nbs/index.ipynb?file-browser-path=/')


class Notebooks(AsyncLargeFileManager):
    "The files; a Python notebook is served as it will be once its kernel is up, so that opening it changes nothing."

    async def get(self, path, *args, **options):
        model = await super().get(path, *args, **options)
        if model['type'] == 'notebook' and model['content'] and model['content'].metadata.get('kernelspec', {}).get('name') == 'python3':
            spec = self.parent.kernel_spec_manager.get_kernel_spec('python3')
            kernel = dict(name='python3', display_name=spec.display_name, language=spec.language)
            model['content'].metadata.update(kernelspec=kernel, language_info=IPythonKernel.language_info)
        return model


default_handlers = [('/project', Project)]
