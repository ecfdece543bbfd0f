import js from '@eslint/js';
import ts from 'typescript-eslint';

export default ts.config(js.configs.recommended, ...ts.configs.recommendedTypeChecked, ...ts.configs.stylistic, {
  languageOptions: { parserOptions: { project: './tsconfig.lint.json', tsconfigRootDir: import.meta.dirname } },
  rules: {
    '@typescript-eslint/no-floating-promises': 'error',
    '@typescript-eslint/naming-convention': ['error', { selector: 'interface', format: ['PascalCase'], prefix: ['I'] }],
    '@typescript-eslint/unbound-method': 'off', // signals take `this` beside the method
    eqeqeq: ['error', 'always', { null: 'ignore' }]
  }
});
